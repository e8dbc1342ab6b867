#include "kernels/cuda/attention_mma.h"
#include "kernels/cuda/attention_mma_kernel.h"

namespace quantmill::QUANTMILL_CUDA {

extern template void LaunchMmaAttention<64>(Exec&, const CudaBatchPlan&, AttentionArguments,
                                            const MmaTiling&, View<const float>, View<BF16>);
extern template void LaunchMmaAttention<96>(Exec&, const CudaBatchPlan&, AttentionArguments,
                                            const MmaTiling&, View<const float>, View<BF16>);
extern template void LaunchMmaAttention<128>(Exec&, const CudaBatchPlan&, AttentionArguments,
                                             const MmaTiling&, View<const float>, View<BF16>);
extern template void LaunchMmaAttention<256>(Exec&, const CudaBatchPlan&, AttentionArguments,
                                             const MmaTiling&, View<const float>, View<BF16>);

void MmaAttention(Exec& exec, const CudaBatchPlan& plan, const AttentionArguments& a,
                  const MmaTiling& tiling, View<const float> q, View<BF16> out) {
  switch (tiling.dims) {
    case 64:
      return LaunchMmaAttention<64>(exec, plan, a, tiling, q, out);
    case 96:
      return LaunchMmaAttention<96>(exec, plan, a, tiling, q, out);
    case 128:
      return LaunchMmaAttention<128>(exec, plan, a, tiling, q, out);
    case 256:
      return LaunchMmaAttention<256>(exec, plan, a, tiling, q, out);
    default:
      Check(false, "Attention: no kernel has this tiling");
  }
}

}  // namespace quantmill::QUANTMILL_CUDA
