// The weights of one block, packed for a backend.
#ifndef QUANTMILL_QUANT_RUNTIME_BLOCK_WEIGHTS_H_
#define QUANTMILL_QUANT_RUNTIME_BLOCK_WEIGHTS_H_

#include <memory>
#include <vector>

#include "kernels/ops.h"
#include "quant/model/block_source.h"
#include "quant/model/model_source.h"

namespace quantmill {

// A packed linear layer. Owns its weight and bias.
struct LinearWeights {
  std::unique_ptr<PackedLinear> weight;
  Tensor bias;  // [1, out] F32 in the backend's memory, or empty
};

// Packs a linear as it is stored: codes stay codes, dense weights keep their type. The file's pages
// are released afterwards.
LinearWeights LoadLinear(Backend& backend, Exec& exec, const ModelSource& source,
                         const LinearSpec& linear, Compute compute);

struct BlockWeights {
  Tensor attention_norm;  // [1, hidden] F32, backend memory; likewise below
  Tensor mlp_norm;
  Tensor attention_norm_bias;  // or empty
  Tensor mlp_norm_bias;
  Tensor attention_post_norm;
  Tensor mlp_post_norm;
  Tensor query_norm;  // [1, head_dim], or empty
  Tensor key_norm;
  std::vector<LinearWeights> linears;  // in the order of BlockSpec::Linears()
  std::vector<LinearWeights> routing;  // in the order of BlockSpec::RoutingLinears()

  // The position of a linear in `linears`, by its address in the spec.
  static size_t IndexOf(const BlockSpec& block, const LinearSpec& linear);
};

// Norms, biases and routing only, folded: `linears` have no weight yet. For calibration, which
// fills each in when its layer is solved.
BlockWeights LoadBlockExceptWeights(Backend& backend, Exec& exec, const BlockSource& source,
                                    Compute compute);

// The block of a dense checkpoint with its folding applied.
BlockWeights LoadBlock(Backend& backend, Exec& exec, const BlockSource& source, Compute compute);
// The block as it is stored, dense or quantized.
BlockWeights LoadBlock(Backend& backend, Exec& exec, const ModelSource& source,
                       const BlockSpec& block, Compute compute);

// The dense weight of one linear with the block's folding applied, [out, in] F32 in the backend's
// memory: what solvers take. Waits; the file's pages are released.
Tensor LoadFloatWeight(Backend& backend, Exec& exec, const BlockSource& source,
                       const LinearSpec& linear);

// A vector of the checkpoint in the backend's memory, [1, n] F32; empty where `name` is.
Tensor LoadVector(Backend& backend, Exec& exec, const ModelSource& source, const std::string& name);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_BLOCK_WEIGHTS_H_
