// A whole model in memory, ready to run: embedding, blocks, final norm, head.
#ifndef QUANTMILL_QUANT_RUNTIME_DECODER_MODEL_H_
#define QUANTMILL_QUANT_RUNTIME_DECODER_MODEL_H_

#include <optional>
#include <span>
#include <vector>

#include "kernels/ops.h"
#include "quant/model/model_source.h"
#include "quant/runtime/block_forward.h"
#include "quant/runtime/block_weights.h"
#include "quant/runtime/embedding.h"
#include "quant/runtime/head.h"
#include "quant/runtime/kv_cache.h"
#include "quant/runtime/kv_precision.h"

namespace quantmill {

// Not copyable. `backend`, `exec` and `source` must outlive it (the embedding is read from the
// mapped file). Quantized linears run from their codes, with their inputs rounded where the
// artifact says so; keys and values are kept as `kv` says, or else as the artifact does.
class DecoderModel {
 public:
  DecoderModel(Backend& backend, Exec& exec, const ModelSource& source, Compute compute,
               const std::optional<KvPrecision>& kv = std::nullopt);
  DecoderModel(const DecoderModel&) = delete;
  DecoderModel& operator=(const DecoderModel&) = delete;

  const DecoderSpec& spec() const { return source_.spec(); }
  Compute compute() const { return compute_; }
  int64_t weight_bytes() const;  // of packed linears

  // A cache for this model that holds `tokens` positions over all sequences (rounded up to blocks;
  // each sequence may waste up to one).
  KvCache NewCache(int64_t tokens) const;

  // Runs the plan's tokens through embedding, blocks and final norm. ids: one per row of the plan.
  // hidden: [tokens, spec().hidden] of ActivationType(compute), the input of Logits.
  void Forward(const BatchPlan& plan, std::span<const int32_t> ids, KvCache& cache, Matrix hidden);

  // logits: [rows, vocab] F32 of these rows of `hidden`.
  void Logits(ConstMatrix hidden, Matrix logits);

 private:
  Backend& backend_;
  Exec& exec_;
  const ModelSource& source_;
  Compute compute_;
  KvShape kv_shape_;  // without blocks
  Embedding embedding_;
  BlockForward forward_;
  std::vector<BlockWeights> blocks_;
  Head head_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_DECODER_MODEL_H_
