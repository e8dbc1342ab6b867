// Attention on a store of INT8 codes.
#include "kernels/cuda/attention_kernel.h"

namespace quantmill::QUANTMILL_CUDA {

template void LaunchAttention<KvFormat::kInt8>(Exec&, const CudaBatchPlan&,
                                               const AttentionArguments&, View<const float>,
                                               const Output&);

}  // namespace quantmill::QUANTMILL_CUDA
