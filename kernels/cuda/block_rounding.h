// Rounds inputs in groups with scales that are rounded too ("rounded inputs" of ops.h).
#ifndef QUANTMILL_KERNELS_CUDA_BLOCK_ROUNDING_H_
#define QUANTMILL_KERNELS_CUDA_BLOCK_ROUNDING_H_

#include "kernels/block_scaled_linear.h"

namespace quantmill::QUANTMILL_CUDA {

// out = x rounded. x, out: [tokens, in] F32|BF16, of one type, device memory.
void RoundToBlocks(Exec& exec, ConstMatrix x, const BlockRounding& rounding, Matrix out);

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_BLOCK_ROUNDING_H_
