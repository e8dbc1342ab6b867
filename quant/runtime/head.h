// From the residual stream behind the last block to logits.
#ifndef QUANTMILL_QUANT_RUNTIME_HEAD_H_
#define QUANTMILL_QUANT_RUNTIME_HEAD_H_

#include <cstdint>

#include "kernels/ops.h"
#include "quant/model/model_source.h"
#include "quant/runtime/block_weights.h"

namespace quantmill {

// The final norm; then, where the description has it, a projection to the embedding's width; then
// lm_head and, where the description has it, a soft cap. `backend` and `exec` must outlive it,
// `source` the constructor's call and its description.
class Head {
 public:
  Head(Backend& backend, Exec& exec, const ModelSource& source, Compute compute);

  // residual: [tokens, hidden] F32.  hidden: same shape, of ActivationType(compute).
  void Normalize(ConstMatrix residual, Matrix hidden);
  // hidden: rows of Normalize's.  logits: [rows, vocab] F32.
  void Logits(ConstMatrix hidden, Matrix logits);

  int64_t weight_bytes() const;  // of packed linears

 private:
  void Project(ConstMatrix hidden, Matrix logits);

  Backend& backend_;
  Exec& exec_;
  const DecoderSpec& spec_;
  Tensor norm_;  // [1, hidden], or empty
  Tensor norm_bias_;
  LinearWeights project_out_;  // empty: none
  LinearWeights head_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_HEAD_H_
