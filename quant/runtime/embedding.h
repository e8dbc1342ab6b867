// From token ids to the residual stream that the first block reads.
#ifndef QUANTMILL_QUANT_RUNTIME_EMBEDDING_H_
#define QUANTMILL_QUANT_RUNTIME_EMBEDDING_H_

#include <cstdint>
#include <span>

#include "kernels/ops.h"
#include "quant/model/model_source.h"
#include "quant/runtime/block_weights.h"

namespace quantmill {

// Rows of the embedding, scaled, then, where the description has them: a projection to the stream's
// width, learned positions, a norm. `backend`, `exec` and `source` must outlive it: the tables are
// read from the mapped file.
class Embedding {
 public:
  Embedding(Backend& backend, Exec& exec, const ModelSource& source, Compute compute);

  // ids: one for each row of the plan.  out: [tokens, hidden] F32. Throws Error(kBadInput) for a
  // token outside the table, and for a position beyond the learned ones.
  void Run(const BatchPlan& plan, std::span<const int32_t> ids, Matrix out);

  int64_t weight_bytes() const;  // of packed linears

 private:
  void CheckInputs(const BatchPlan& plan, std::span<const int32_t> ids) const;
  void Look(std::span<const int32_t> ids, Matrix out);
  void AddPositions(const BatchPlan& plan, Matrix out);

  Backend& backend_;
  Exec& exec_;
  const ModelSource& source_;
  Compute compute_;
  LinearWeights project_in_;  // empty: none
  Tensor norm_;               // [1, hidden], or empty
  Tensor norm_bias_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_EMBEDDING_H_
