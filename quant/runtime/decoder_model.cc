#include "quant/runtime/decoder_model.h"

#include <string>

namespace quantmill {

void Embed(Backend& backend, Exec& exec, const ModelSource& source, std::span<const int32_t> ids,
           Matrix out) {
  for (const int32_t id : ids) {
    if (id < 0 || id >= source.spec().vocab) {
      throw Error(ErrorCode::kBadInput, source.path(),
                  "token " + std::to_string(id) + " is outside the embedding of " +
                      std::to_string(source.spec().vocab) +
                      " rows; does the tokenizer belong to this model?");
    }
  }
  backend.EmbedRows(exec, source.checkpoint().View(source.spec().embedding), ids, 1.0f, out);
}

DecoderModel::DecoderModel(Backend& backend, Exec& exec, const ModelSource& source, Compute compute,
                           const std::optional<KvPrecision>& kv)
    : backend_(backend),
      exec_(exec),
      source_(source),
      compute_(compute),
      kv_shape_(KvShapeOf(source, kv ? *kv : KvPrecisionNamed("auto", source))),
      forward_(backend, exec, source.spec(), compute) {
  const DecoderSpec& spec = source.spec();
  for (const BlockSpec& block : spec.blocks) {
    blocks_.push_back(LoadBlock(backend, exec, source, block, compute));
  }
  final_norm_ = LoadVector(backend, exec, source, spec.final_norm);
  head_ = LoadLinear(backend, exec, source, spec.lm_head, compute);
}

int64_t DecoderModel::weight_bytes() const {
  int64_t total = head_.weight->bytes();
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
  Embed(backend_, exec_, source_, ids, residual);
  for (int64_t layer = 0; layer < spec().layers(); ++layer) {
    const auto at = static_cast<size_t>(layer);
    forward_.Run(spec().blocks[at], blocks_[at], {plan, layer, cache.store()}, residual);
  }
  NormParams norm;
  norm.kind = spec().norm;
  norm.eps = spec().norm_eps;
  norm.gain = final_norm_;
  backend_.Norm(exec_, residual, norm, hidden);
}

void DecoderModel::Logits(ConstMatrix hidden, Matrix logits) {
  backend_.MatMul(exec_, hidden, *head_.weight, head_.bias, MatMulMode::kStore, logits);
}

}  // namespace quantmill
