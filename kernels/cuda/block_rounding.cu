// A warp rounds one group of one token.
#include <algorithm>
#include <bit>

#include "kernels/core/dtype.h"
#include "kernels/cuda/block_rounding.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

constexpr int kThreads = 256;
constexpr int kGroupsOfBlock = kThreads / kWarp;

// absmax is finite.
__device__ float BlockScale(const BlockRounding& rounding, float absmax) {
  if (!rounding.powers) {
    return FromE4M3(ToE4M3(rounding.global_scale * (absmax / 6.0f))) / rounding.global_scale;
  }
  // A quarter of the step between powers of two takes 1.75 of one to the next.
  const auto power = static_cast<int>((std::bit_cast<uint32_t>(absmax) + 0x200000u) >> 23);
  const int exponent = power - (rounding.fp4 ? 2 : 8);
  return std::bit_cast<float>(static_cast<uint32_t>(exponent < 1 ? 1 : exponent) << 23);
}

__device__ float RoundedValue(const BlockRounding& rounding, float x, float scale) {
  if (scale == 0) return 0;
  const float number = rounding.fp4 ? FromE2M1(ToE2M1(x / scale)) : FromE4M3(ToE4M3(x / scale));
  return number * scale;
}

template <typename T>
__global__ void RoundToBlocksKernel(View<const T> x, BlockRounding rounding, View<T> out) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t group =
      static_cast<int64_t>(blockIdx.x) * kGroupsOfBlock + static_cast<int>(threadIdx.x) / kWarp;
  const int64_t begin = group * rounding.group_size;
  if (begin >= x.cols) return;  // the whole warp
  const int64_t end = begin + rounding.group_size < x.cols ? begin + rounding.group_size : x.cols;
  for (int64_t t = blockIdx.y; t < x.rows; t += gridDim.y) {
    float absmax = 0;
    for (int64_t i = begin + lane; i < end; i += kWarp) {
      absmax = LargestOrNaN{}(absmax, fabsf(ToFloat(x.Row(t)[i])));
    }
    absmax = WarpReduce(absmax, LargestOrNaN{});
    const bool finite = absmax - absmax == 0;
    const float scale = finite ? BlockScale(rounding, absmax) : 0.0f;
    for (int64_t i = begin + lane; i < end; i += kWarp) {
      const float value = ToFloat(x.Row(t)[i]);
      out.Row(t)[i] = FromFloat<T>(finite ? RoundedValue(rounding, value, scale) : absmax - absmax);
    }
  }
}

}  // namespace

void RoundToBlocks(Exec& exec, ConstMatrix x, const BlockRounding& rounding, Matrix out) {
  const int64_t groups = (x.cols + rounding.group_size - 1) / rounding.group_size;
  constexpr int64_t kMostRows = 65535;
  WithFloatType(x.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(
        exec, RoundToBlocksKernel<T>,
        {(groups + kGroupsOfBlock - 1) / kGroupsOfBlock, std::min(x.rows, kMostRows), kThreads, 0},
        In<T>(x), rounding, Out<T>(out));
  });
}

}  // namespace quantmill::QUANTMILL_CUDA
