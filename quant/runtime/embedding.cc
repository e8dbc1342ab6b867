#include "quant/runtime/embedding.h"

#include <numeric>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "quant/runtime/norm.h"

namespace quantmill {

Embedding::Embedding(Backend& backend, Exec& exec, const ModelSource& source, Compute compute)
    : backend_(backend), exec_(exec), source_(source), compute_(compute) {
  const DecoderSpec& spec = source.spec();
  if (!spec.project_in.name.empty()) {
    project_in_ = LoadLinear(backend, exec, source, spec.project_in, compute);
  }
  norm_ = LoadVector(backend, exec, source, spec.embedding_norm);
  norm_bias_ = LoadVector(backend, exec, source, spec.embedding_norm_bias);
}

int64_t Embedding::weight_bytes() const {
  return project_in_.weight == nullptr ? 0 : project_in_.weight->bytes();
}

void Embedding::CheckInputs(const BatchPlan& plan, std::span<const int32_t> ids) const {
  const DecoderSpec& spec = source_.spec();
  for (const int32_t id : ids) {
    if (id >= 0 && id < spec.vocab) continue;
    throw Error(ErrorCode::kBadInput, source_.path(),
                "token " + std::to_string(id) + " is outside the embedding of " +
                    std::to_string(spec.vocab) + " rows; does the tokenizer belong to this model?");
  }
  if (spec.position_embedding.empty()) return;
  for (int64_t row = 0; row < plan.tokens(); ++row) {
    if (plan.position(row) < spec.max_positions) continue;
    throw Error(ErrorCode::kBadInput, source_.path(),
                "has " + std::to_string(spec.max_positions) +
                    " learned positions; a longer sequence cannot be run: give it fewer tokens "
                    "(--sequence-length, --window, --max-tokens)");
  }
}

void Embedding::Look(std::span<const int32_t> ids, Matrix out) {
  const DecoderSpec& spec = source_.spec();
  const ConstMatrix table = source_.checkpoint().View(spec.embedding);
  // As the models' own code has it, whose scale is a tensor of the model's type.
  const float scale = RoundTo(table.dtype, spec.embedding_scale);
  if (project_in_.weight == nullptr) return backend_.EmbedRows(exec_, table, ids, scale, out);
  Workspace::Scope scope(exec_.workspace);
  const Matrix rows = scope.Take(DType::kF32, out.rows, spec.embedding_width());
  const Matrix input = scope.Take(ActivationType(compute_), out.rows, spec.embedding_width());
  backend_.EmbedRows(exec_, table, ids, scale, rows);
  backend_.Convert(exec_, rows, input);
  backend_.MatMul(exec_, input, *project_in_.weight, project_in_.bias, MatMulMode::kStore, out);
}

void Embedding::AddPositions(const BatchPlan& plan, Matrix out) {
  const DecoderSpec& spec = source_.spec();
  std::vector<int32_t> rows;
  rows.reserve(static_cast<size_t>(plan.tokens()));
  for (int64_t row = 0; row < plan.tokens(); ++row) {
    rows.push_back(static_cast<int32_t>(plan.position(row) + spec.position_offset));
  }
  Workspace::Scope scope(exec_.workspace);
  const Matrix positions = scope.Take(DType::kF32, out.rows, out.cols);
  backend_.EmbedRows(exec_, source_.checkpoint().View(spec.position_embedding), rows, 1.0f,
                     positions);
  std::iota(rows.begin(), rows.end(), 0);
  backend_.AddRows(exec_, positions, rows, out);
}

void Embedding::Run(const BatchPlan& plan, std::span<const int32_t> ids, Matrix out) {
  const DecoderSpec& spec = source_.spec();
  CheckInputs(plan, ids);
  Look(ids, out);
  if (!spec.position_embedding.empty()) AddPositions(plan, out);
  if (norm_.empty()) return;
  backend_.Norm(exec_, out, NormOf(spec, norm_, norm_bias_), out);
}

}  // namespace quantmill
