// Attention on tensor cores.
#ifndef QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_H_
#define QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_H_

#include "kernels/cuda/attention_arguments.h"
#include "kernels/cuda/attention_mma_tiling.h"

namespace quantmill::QUANTMILL_CUDA {

// What CudaBackend::Attention asks for, on a store of BF16. a.tiles is not read. tiling: one that
// ChooseMmaTiling gives for the store's head_dim on some architecture.
void MmaAttention(Exec& exec, const CudaBatchPlan& plan, const AttentionArguments& a,
                  const MmaTiling& tiling, View<const float> q, View<BF16> out);

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_H_
