#include "quant/runtime/decoder_model.h"

namespace quantmill {

DecoderModel::DecoderModel(Backend& backend, Exec& exec, const ModelSource& source, Compute compute,
                           const std::optional<KvPrecision>& kv)
    : backend_(backend),
      exec_(exec),
      source_(source),
      compute_(compute),
      kv_shape_(KvShapeOf(source, kv ? *kv : KvPrecisionNamed("auto", source))),
      embedding_(backend, exec, source, compute),
      forward_(backend, exec, source.spec(), compute),
      head_(backend, exec, source, compute) {
  for (const BlockSpec& block : source.spec().blocks) {
    blocks_.push_back(LoadBlock(backend, exec, source, block, compute));
  }
}

int64_t DecoderModel::weight_bytes() const {
  int64_t total = embedding_.weight_bytes() + head_.weight_bytes();
  for (const BlockWeights& block : blocks_) {
    for (const LinearWeights& linear : block.linears) total += linear.weight->bytes();
  }
  return total;
}

KvCache DecoderModel::NewCache(int64_t tokens) const {
  KvShape shape = kv_shape_;
  shape.blocks = (tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  return KvCache(backend_, exec_, shape);
}

void DecoderModel::Forward(const BatchPlan& plan, std::span<const int32_t> ids, KvCache& cache,
                           Matrix hidden) {
  Check(static_cast<int64_t>(ids.size()) == plan.tokens(), "Forward: one id for each row");
  Workspace::Scope scope(exec_.workspace);
  const Matrix residual = scope.Take(DType::kF32, plan.tokens(), spec().hidden);
  embedding_.Run(plan, ids, residual);
  for (int64_t layer = 0; layer < spec().layers(); ++layer) {
    const auto at = static_cast<size_t>(layer);
    forward_.Run(spec().blocks[at], blocks_[at], {plan, layer, cache.store()}, residual);
  }
  head_.Normalize(residual, hidden);
}

void DecoderModel::Logits(ConstMatrix hidden, Matrix logits) { head_.Logits(hidden, logits); }

}  // namespace quantmill
