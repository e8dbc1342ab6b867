// Attention on a store of E4M3 numbers.
#include "kernels/cuda/attention_kernel.h"

namespace quantmill::QUANTMILL_CUDA {

template void LaunchAttention<KvFormat::kFp8>(Exec&, const CudaBatchPlan&,
                                              const AttentionArguments&, View<const float>,
                                              const Output&);

}  // namespace quantmill::QUANTMILL_CUDA
