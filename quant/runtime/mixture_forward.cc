// The MLP of a block that is a mixture of experts.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>

#include "quant/runtime/block_forward.h"

namespace quantmill {
namespace {

// Tokens of an expert at a time, as kMlpRows of block_forward.cc.
constexpr int64_t kExpertRows = 1024;

// An expert's gate, up and down in BlockWeights::linears.
std::span<const LinearWeights> ExpertOf(const BlockSpec& block, const BlockWeights& weights,
                                        int64_t expert) {
  const int64_t after = std::ssize(block.mixture.experts) - expert;
  return std::span(weights.linears).last(static_cast<size_t>(3 * after)).first(3);
}

float Sigmoid(float x) { return static_cast<float>(1 / (1 + std::exp(-static_cast<double>(x)))); }

}  // namespace

std::vector<ExpertTokens> BlockForward::Route(const BlockSpec& block, const BlockWeights& weights,
                                              ConstMatrix input) {
  Workspace::Scope scope(exec_.workspace);
  const Matrix logits = scope.Take(DType::kF32, input.rows, block.mixture.router.out);
  backend_.MatMul(exec_, input, *weights.routing[0].weight, {}, MatMulMode::kStore, logits);
  const Tensor host = HostTensor(DType::kF32, logits.rows, logits.cols);
  backend_.Download(exec_, logits, host);
  return RouteTokens(host, block.mixture.top_k, block.mixture.renormalize);
}

void BlockForward::ActivateExpert(const BlockSpec& block, const BlockWeights& weights,
                                  const SharedInput& mlp, ConstMatrix input, Matrix activated) {
  if (mlp.expert == SharedInput::kNoExpert) return ActivateMlp(block, weights, input, activated);
  const auto expert = ExpertOf(block, weights, mlp.expert);
  for (int64_t row = 0; row < input.rows; row += kExpertRows) {
    const int64_t rows = std::min(kExpertRows, input.rows - row);
    Workspace::Scope scope(exec_.workspace);
    const Matrix gate = TakePreActivation(activated.Rows(row, rows), scope);
    const Matrix up = scope.Take(DType::kF32, rows, activated.cols);
    backend_.MatMul(exec_, input.Rows(row, rows), *expert[0].weight, {}, MatMulMode::kStore, gate);
    backend_.MatMul(exec_, input.Rows(row, rows), *expert[1].weight, {}, MatMulMode::kStore, up);
    backend_.GatedActivation(exec_, spec_.activation, gate, up, activated.Rows(row, rows));
  }
}

// Experts add in the order of their numbers, so that a token's sum does not depend on the others.
void BlockForward::RunMixture(const BlockSpec& block, const BlockWeights& weights,
                              ConstMatrix input, Matrix residual) {
  AddSharedExpert(block, weights, input, residual);
  const std::vector<ExpertTokens> experts = Route(block, weights, input);
  for (int64_t e = 0; e < std::ssize(experts); ++e) {
    AddExpert(block, weights, e, experts[static_cast<size_t>(e)], input, residual);
  }
}

void BlockForward::AddSharedExpert(const BlockSpec& block, const BlockWeights& weights,
                                   ConstMatrix input, Matrix residual) {
  if (block.down.name.empty()) return;
  for (int64_t row = 0; row < input.rows; row += kExpertRows) {
    const int64_t rows = std::min(kExpertRows, input.rows - row);
    Workspace::Scope scope(exec_.workspace);
    const ConstMatrix x = input.Rows(row, rows);
    const Matrix activated = scope.Take(activation_type(), rows, block.up.out);
    const Matrix output = scope.Take(DType::kF32, rows, spec_.hidden);
    const Matrix gate = scope.Take(DType::kF32, rows, 1);
    ActivateMlp(block, weights, x, activated);
    Apply(block, weights, block.down, activated, MatMulMode::kStore, output);
    backend_.MatMul(exec_, x, *weights.routing[1].weight, {}, MatMulMode::kStore, gate);
    std::vector<float> factors(static_cast<size_t>(rows));
    backend_.Download(exec_, gate, MutableViewOf(factors.data(), rows, 1));
    for (float& factor : factors) factor = Sigmoid(factor);
    std::vector<int32_t> all(factors.size());
    std::iota(all.begin(), all.end(), 0);
    backend_.ScatterAdd(exec_, output, all, factors, residual.Rows(row, rows));
  }
}

void BlockForward::AddExpert(const BlockSpec& block, const BlockWeights& weights, int64_t expert,
                             const ExpertTokens& tokens, ConstMatrix input, Matrix residual) {
  const MlpSpec& spec = block.mixture.experts[static_cast<size_t>(expert)];
  const LinearWeights& down = ExpertOf(block, weights, expert)[2];
  const auto count = std::ssize(tokens.rows);
  for (int64_t first = 0; first < count; first += kExpertRows) {
    const int64_t rows = std::min(kExpertRows, count - first);
    const auto at = static_cast<size_t>(first);
    const auto size = static_cast<size_t>(rows);
    const std::span<const int32_t> chosen = std::span(tokens.rows).subspan(at, size);
    Workspace::Scope scope(exec_.workspace);
    const Matrix gathered = scope.Take(activation_type(), rows, spec_.hidden);
    const Matrix activated = scope.Take(activation_type(), rows, spec.up.out);
    const Matrix output = scope.Take(DType::kF32, rows, spec_.hidden);
    backend_.GatherRows(exec_, input, chosen, gathered);
    ActivateExpert(block, weights, {Site::kMlpOut, expert}, gathered, activated);
    backend_.MatMul(exec_, activated, *down.weight, {}, MatMulMode::kStore, output);
    backend_.ScatterAdd(exec_, output, chosen, std::span(tokens.factors).subspan(at, size),
                        residual);
  }
}

}  // namespace quantmill
