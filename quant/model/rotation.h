// Rotation of a model: an orthogonal basis of the residual stream in which no channel stands out.
// Exact for RMSNorm models, whose norms do not see a rotation once their gains are folded away:
// computational invariance (SliceGPT, Ashkboos et al. 2024, section 3.1), with Hadamard matrices as
// in QuaRot (Ashkboos et al. 2024, section 4.1) and SpinQuant's R1 and R2 (Liu et al. 2024).
#ifndef QUANTMILL_QUANT_MODEL_ROTATION_H_
#define QUANTMILL_QUANT_MODEL_ROTATION_H_

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "quant/model/hadamard.h"
#include "quant/model/model_source.h"

namespace quantmill {

// How one tensor of the rotated model is made from tensors of the original.
struct RotatedTensor {
  std::string from = {};              // the tensor whose values are read
  std::string gain = {};              // columns are multiplied by this norm's gain; empty: not
  const Hadamard* columns = nullptr;  // W R, each size() columns on their own; null: not
  const Hadamard* rows = nullptr;     // Rt W, each size() of row_runs on their own; a 1-D tensor
                                      // is a column. Null: not
  RowRuns row_runs = {};              // whole multiples of rows->size(), as all its sizes are
  bool ones = false;                  // a gain that was folded away: all ones, nothing is read
};

// With x' = x R for the residual stream and v' = v H for the values of each head:
//   embedding   E R
//   query, key, gate, up    W diag(gain) R; so do a mixture's router and shared gate
//   value       (I (x) Ht) W diag(gain) R, its bias b (I (x) H)
//   output      Rt W (I (x) H), its bias b R
//   down        Rt W, its bias b R
//   norms       ones
//   lm_head     W diag(final gain) R; where it was tied to the embedding it becomes a tensor of its
//               own, since the embedding has no gain
// Heads are left alone where head_dim has no Hadamard matrix.
class Rotation {
 public:
  // Throws Error(kUsage, "--rotate") with the reason where the model cannot be rotated: norms that
  // subtract a mean, a hidden size without a Hadamard matrix, a tensor of that size that belongs to
  // no known layer.
  explicit Rotation(const ModelSource& source);
  Rotation(const Rotation&) = delete;  // tensors() point into it
  Rotation& operator=(const Rotation&) = delete;

  // By name; tensors that are not here stay as they are.
  const std::map<std::string, RotatedTensor>& tensors() const { return tensors_; }
  // {"hidden": "12 x 12 x 2 x 2", "head": "2 x ...", "seed": 1}: what must be equal for the same
  // tensors to come out.
  nlohmann::json Json() const;

 private:
  void AddBlock(const BlockSpec& block);
  void AddReader(const LinearSpec& linear, const std::string& norm);
  void AddHeads(const StoredRows& value);
  void AddWriter(const LinearSpec& linear, const Hadamard* columns);

  std::optional<Hadamard> hidden_;
  std::optional<Hadamard> head_;
  std::map<std::string, RotatedTensor> tensors_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_ROTATION_H_
