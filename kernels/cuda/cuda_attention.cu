// Attention of the cuda backend; attention_kernel.h and attention_mma_kernel.h have its kernels.
#include <algorithm>

#include "kernels/cuda/attention_kernel.h"
#include "kernels/cuda/attention_mma.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/staging.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {

extern template void LaunchAttention<KvFormat::kF32>(Exec&, const CudaBatchPlan&,
                                                     const AttentionArguments&, View<const float>,
                                                     const Output&);
extern template void LaunchAttention<KvFormat::kBF16>(Exec&, const CudaBatchPlan&,
                                                      const AttentionArguments&, View<const float>,
                                                      const Output&);
extern template void LaunchAttention<KvFormat::kFp8>(Exec&, const CudaBatchPlan&,
                                                     const AttentionArguments&, View<const float>,
                                                     const Output&);
extern template void LaunchAttention<KvFormat::kInt8>(Exec&, const CudaBatchPlan&,
                                                      const AttentionArguments&, View<const float>,
                                                      const Output&);
extern template void LaunchAttention<KvFormat::kInt4>(Exec&, const CudaBatchPlan&,
                                                      const AttentionArguments&, View<const float>,
                                                      const Output&);

void CudaBackend::Attention(Exec& exec, const BatchPlan& plan, int64_t layer,
                            const AttentionParams& params, ConstMatrix q, const KvStore& store,
                            Matrix out) {
  CheckAttention(plan, store.shape(), layer, params, q, out);
  const CudaBatchPlan& batch = PlanOf(plan);
  const auto& kv = static_cast<const CudaKvStore&>(store);
  batch.CheckBlocks(kv.shape());
  if (batch.tokens() == 0) return;

  Workspace::Scope scope(exec.workspace);
  const bool capped = params.softcap > 0;
  const bool alibi = !params.alibi_slopes.empty();
  const ScoreShape scores{
      capped ? params.scale / params.softcap : params.scale * kLog2E, params.softcap * kLog2E,
      alibi ? OnDevice(exec, scope, params.alibi_slopes) : nullptr,
      static_cast<int>(std::min(params.sliding_window, CudaBatchPlan::kMostPositions))};
  const AttentionArguments arguments{nullptr, batch.arrays(), kv.Layer(layer), scores,
                                     static_cast<int>(params.heads / params.kv_heads)};
  const bool f32 = out.dtype == DType::kF32;
  if (!f32 && kv.layout().format == KvFormat::kBF16) {
    constexpr int kRowsOfDecode = 16;
    const bool few_rows = batch.most_tokens() * arguments.group <= kRowsOfDecode;
    if (const auto tiling =
            ChooseMmaTiling(kv.layout().head_dim, device_.compute_capability, few_rows)) {
      return MmaAttention(exec, batch, arguments, *tiling, In<float>(q), Out<BF16>(out));
    }
  }
  const Output to{f32 ? out.Row<float>(0) : nullptr, f32 ? nullptr : out.Row<BF16>(0), out.stride};
  switch (kv.layout().format) {
    case KvFormat::kF32:
      return LaunchAttention<KvFormat::kF32>(exec, batch, arguments, In<float>(q), to);
    case KvFormat::kBF16:
      return LaunchAttention<KvFormat::kBF16>(exec, batch, arguments, In<float>(q), to);
    case KvFormat::kFp8:
      return LaunchAttention<KvFormat::kFp8>(exec, batch, arguments, In<float>(q), to);
    case KvFormat::kInt8:
      return LaunchAttention<KvFormat::kInt8>(exec, batch, arguments, In<float>(q), to);
    case KvFormat::kInt4:
      return LaunchAttention<KvFormat::kInt4>(exec, batch, arguments, In<float>(q), to);
  }
}

}  // namespace quantmill::QUANTMILL_CUDA
