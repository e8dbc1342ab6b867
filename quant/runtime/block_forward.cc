#include "quant/runtime/block_forward.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "quant/runtime/norm.h"

namespace quantmill {
namespace {

// Tokens of the MLP computed at a time: gate and up are F32 and wide, so a whole batch of them
// would be the largest thing in memory. Rows are independent, so the results do not depend on this.
constexpr int64_t kMlpRows = 1024;

// out[t] = the columns `runs` of all[t]. Both contiguous F32.
void GatherColumns(Backend& backend, Exec& exec, Matrix all, const RowRuns& runs, Matrix out) {
  // As a gather of rows: the widest pieces of which both are made.
  const int64_t piece =
      std::gcd(std::gcd(runs.first, runs.length), std::gcd(runs.stride, all.cols));
  const int64_t pieces = all.cols / piece;
  std::vector<int32_t> rows;
  rows.reserve(static_cast<size_t>(out.size() / piece));
  for (int64_t t = 0; t < all.rows; ++t) {
    for (int64_t i = 0; i < out.cols; i += piece) {
      rows.push_back(static_cast<int32_t>(t * pieces + runs.Row(i) / piece));
    }
  }
  backend.GatherRows(exec, all.Reshaped(all.rows * pieces, piece), rows,
                     out.Reshaped(std::ssize(rows), piece));
}

}  // namespace

int64_t BlockForward::InputWidth(const BlockSpec& block, Site site) const {
  if (!ReadsCarried(block, site)) return spec_.hidden;
  return site == Site::kAttentionOut ? spec_.heads * spec_.head_dim : block.up.out;
}

ConstMatrix BlockForward::Input(const BlockSpec& block, const BlockWeights& weights, Site site,
                                ConstMatrix residual, ConstMatrix carried, Matrix scratch) {
  if (ReadsCarried(block, site)) return carried;
  if (spec_.order != BlockOrder::kPostNorm) {
    Normalize(weights, site == Site::kAttentionIn, residual, scratch);
    return scratch;
  }
  if (scratch.dtype == residual.dtype) return residual;
  backend_.Convert(exec_, residual, scratch);
  return scratch;
}

void BlockForward::Normalize(const BlockWeights& weights, bool attention, ConstMatrix x,
                             Matrix out) {
  const NormParams norm = attention
                              ? NormOf(spec_, weights.attention_norm, weights.attention_norm_bias)
                              : NormOf(spec_, weights.mlp_norm, weights.mlp_norm_bias);
  backend_.Norm(exec_, x, norm, out);
}

void BlockForward::AddNormalized(const BlockSpec& block, const BlockWeights& weights,
                                 const LinearSpec& linear, const Tensor& gain, ConstMatrix input,
                                 Matrix residual) {
  Workspace::Scope scope(exec_.workspace);
  const Matrix added = scope.Take(DType::kF32, residual.rows, residual.cols);
  Apply(block, weights, linear, input, MatMulMode::kStore, added);
  backend_.Norm(exec_, added, NormOf(spec_, gain), added);
  std::vector<int32_t> rows(static_cast<size_t>(residual.rows));
  std::iota(rows.begin(), rows.end(), 0);
  backend_.AddRows(exec_, added, rows, residual);
}

void BlockForward::AddToResidual(const BlockSpec& block, const BlockWeights& weights, Site site,
                                 ConstMatrix input, Matrix residual, Matrix pending) {
  const bool attention = site == Site::kAttentionOut;
  const LinearSpec& linear = attention ? block.output : block.down;
  const Tensor& post_norm = attention ? weights.attention_post_norm : weights.mlp_post_norm;
  if (!post_norm.empty()) {
    return AddNormalized(block, weights, linear, post_norm, input, residual);
  }
  if (spec_.order == BlockOrder::kParallel) {
    if (attention) backend_.Convert(exec_, residual, pending);
    Apply(block, weights, linear, input, MatMulMode::kAdd, pending);
    if (!attention) backend_.Convert(exec_, pending, residual);
    return;
  }
  Apply(block, weights, linear, input, MatMulMode::kAdd, residual);
  if (spec_.order == BlockOrder::kPostNorm) Normalize(weights, attention, residual, residual);
}

void BlockForward::Advance(const BlockSpec& block, const BlockWeights& weights, Site site,
                           const BlockContext& context, ConstMatrix input, Matrix residual,
                           Matrix carried, Matrix pending) {
  switch (site) {
    case Site::kAttentionIn:
      return Attend(block, weights, context, input, carried);
    case Site::kMlpIn:
      if (block.is_mixture()) return;
      return ActivateMlp(block, weights, input, carried);
    case Site::kMlpOut:
      if (block.is_mixture()) return RunMixture(block, weights, input, residual);
      [[fallthrough]];
    case Site::kAttentionOut:
      return AddToResidual(block, weights, site, input, residual, pending);
  }
}

void BlockForward::Apply(const BlockSpec& block, const BlockWeights& weights,
                         const LinearSpec& linear, ConstMatrix input, MatMulMode mode,
                         Matrix output) {
  const LinearWeights& w = weights.linears[BlockWeights::IndexOf(block, linear)];
  backend_.MatMul(exec_, input, *w.weight, w.bias, mode, output);
}

void BlockForward::ProjectHeads(const BlockSpec& block, const BlockWeights& weights,
                                ConstMatrix input, Matrix q, Matrix k, Matrix v) {
  const LinearSpec& fused = block.query_key_value;
  if (fused.name.empty()) {
    Apply(block, weights, block.query, input, MatMulMode::kStore, q);
    Apply(block, weights, block.key, input, MatMulMode::kStore, k);
    Apply(block, weights, block.value, input, MatMulMode::kStore, v);
    return;
  }
  Workspace::Scope scope(exec_.workspace);
  const Matrix all = scope.Take(DType::kF32, input.rows, fused.out);
  Apply(block, weights, fused, input, MatMulMode::kStore, all);
  GatherColumns(backend_, exec_, all, block.Stored(block.query).rows, q);
  GatherColumns(backend_, exec_, all, block.Stored(block.key).rows, k);
  GatherColumns(backend_, exec_, all, block.Stored(block.value).rows, v);
}

RopeParams BlockForward::RopeFor(const BlockSpec& block, const BatchPlan& plan) const {
  const bool windowed = block.sliding_window > 0 && spec_.window_rope.rotary_dim > 0;
  const RopeSpec& rope = windowed ? spec_.window_rope : spec_.rope;
  int64_t positions = 0;
  for (int64_t row = 0; row < plan.tokens() && !rope.long_inv_freq.empty(); ++row) {
    positions = std::max(positions, plan.position(row) + 1);
  }
  return {spec_.head_dim, rope.rotary_dim, rope.FrequenciesFor(positions), rope.amplitude};
}

void BlockForward::Attend(const BlockSpec& block, const BlockWeights& weights,
                          const BlockContext& context, ConstMatrix input, Matrix carried) {
  const int64_t tokens = input.rows;
  Workspace::Scope scope(exec_.workspace);
  const Matrix q = scope.Take(DType::kF32, tokens, spec_.heads * spec_.head_dim);
  const Matrix k = scope.Take(DType::kF32, tokens, spec_.kv_heads * spec_.head_dim);
  const Matrix v = scope.Take(DType::kF32, tokens, spec_.kv_heads * spec_.head_dim);
  ProjectHeads(block, weights, input, q, k, v);

  const auto normalize_heads = [&](const Tensor& gain, Matrix x, int64_t heads) {
    if (gain.empty()) return;
    const Matrix per_head = x.Reshaped(tokens * heads, spec_.head_dim);
    backend_.Norm(exec_, per_head, NormOf(spec_, gain), per_head);
  };
  normalize_heads(weights.query_norm, q, spec_.heads);
  normalize_heads(weights.key_norm, k, spec_.kv_heads);

  const RopeParams rope = RopeFor(block, context.plan);
  if (rope.rotary_dim > 0) {
    backend_.Rope(exec_, context.plan, rope, q);
    backend_.Rope(exec_, context.plan, rope, k);
  }
  if (context.observer != nullptr) (*context.observer)(k, v);
  backend_.AppendKv(exec_, context.plan, context.layer, k, v, context.store);

  AttentionParams params;
  params.heads = spec_.heads;
  params.kv_heads = spec_.kv_heads;
  params.head_dim = spec_.head_dim;
  params.scale = spec_.attention_scale != 0
                     ? spec_.attention_scale
                     : static_cast<float>(1.0 / std::sqrt(static_cast<double>(spec_.head_dim)));
  params.softcap = spec_.attention_softcap;
  params.sliding_window = block.sliding_window;
  params.alibi_slopes = spec_.alibi_slopes;
  backend_.Attention(exec_, context.plan, context.layer, params, q, context.store, carried);
}

Matrix BlockForward::TakePreActivation(Matrix activated, Workspace::Scope& scope) {
  if (activated.dtype == DType::kF32) return activated;
  return scope.Take(DType::kF32, activated.rows, activated.cols);
}

void BlockForward::ActivateMlp(const BlockSpec& block, const BlockWeights& weights,
                               ConstMatrix input, Matrix carried) {
  for (int64_t row = 0; row < input.rows; row += kMlpRows) {
    const int64_t rows = std::min(kMlpRows, input.rows - row);
    Workspace::Scope scope(exec_.workspace);
    const Matrix activated = carried.Rows(row, rows);
    if (!block.gated()) {
      const Matrix up = TakePreActivation(activated, scope);
      Apply(block, weights, block.up, input.Rows(row, rows), MatMulMode::kStore, up);
      backend_.GatedActivation(exec_, spec_.activation, up, {}, activated);
      continue;
    }
    Matrix gate;
    Matrix up;
    if (block.gate_up.name.empty()) {
      gate = TakePreActivation(activated, scope);
      up = scope.Take(DType::kF32, rows, block.up.out);
      Apply(block, weights, block.gate, input.Rows(row, rows), MatMulMode::kStore, gate);
      Apply(block, weights, block.up, input.Rows(row, rows), MatMulMode::kStore, up);
    } else {
      const Matrix both = scope.Take(DType::kF32, rows, block.gate_up.out);
      Apply(block, weights, block.gate_up, input.Rows(row, rows), MatMulMode::kStore, both);
      gate = both.Cols(0, block.gate.out);
      up = both.Cols(block.gate.out, block.up.out);
    }
    backend_.GatedActivation(exec_, spec_.activation, gate, up, activated);
  }
}

void BlockForward::Run(const BlockSpec& block, const BlockWeights& weights,
                       const BlockContext& context, Matrix residual) {
  Workspace::Scope scope(exec_.workspace);
  const int64_t tokens = residual.rows;
  const Matrix normalized = scope.Take(activation_type(), tokens, spec_.hidden);
  const auto carried_by = [&](Site site) {
    const int64_t width = ReadsCarried(block, site) ? InputWidth(block, site) : 0;
    return scope.Take(activation_type(), tokens, width);
  };
  const Matrix attended = carried_by(Site::kAttentionOut);
  const Matrix activated = carried_by(Site::kMlpOut);
  const Matrix pending = scope.Take(DType::kF32, tokens, PendingWidth(spec_));
  for (const Site site : kSites) {
    const bool attention = site == Site::kAttentionIn || site == Site::kAttentionOut;
    const Matrix carried = attention ? attended : activated;
    const ConstMatrix input = Input(block, weights, site, residual, carried, normalized);
    Advance(block, weights, site, context, input, residual, carried, pending);
  }
}

}  // namespace quantmill
