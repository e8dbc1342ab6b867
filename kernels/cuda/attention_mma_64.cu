// Attention on tensor cores, heads of up to 64 elements.
#include "kernels/cuda/attention_mma_kernel.h"

namespace quantmill::QUANTMILL_CUDA {

template void LaunchMmaAttention<64>(Exec&, const CudaBatchPlan&, AttentionArguments,
                                     const MmaTiling&, View<const float>, View<BF16>);

}  // namespace quantmill::QUANTMILL_CUDA
