// Attention on a store of BF16.
#include "kernels/cuda/attention_kernel.h"

namespace quantmill::QUANTMILL_CUDA {

template void LaunchAttention<KvFormat::kBF16>(Exec&, const CudaBatchPlan&,
                                               const AttentionArguments&, View<const float>,
                                               const Output&);

}  // namespace quantmill::QUANTMILL_CUDA
