// MinMaxGrid and RoundToGrid of the cuda backend. Both are bound by reading the weight.
#include "kernels/cuda/codes.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// What MinMaxGrid needs of a QuantScheme.
struct GridRule {
  int64_t group_size;
  bool symmetric;
  float half_range;
  float scale_of_zeros;
  float min_code;
  float max_code;
  DType scale_dtype;
};

struct MinMaxPoint {
  float scale;
  int8_t zero;
};

__device__ MinMaxPoint SmallestGrid(float lo, float hi, const GridRule& rule) {
  float scale = std::max(-lo, hi) / rule.half_range;
  float zero = 0;
  if (!rule.symmetric) {
    scale = (hi - lo) / (rule.max_code - rule.min_code);
    // lo = 0 apart: 0 / 0 in an all-zero group.
    zero = lo < 0 ? rintf(rule.min_code - lo / scale) : rule.min_code;
    zero = std::clamp(zero, rule.min_code, rule.max_code);
  }
  float stored = RoundedTo(rule.scale_dtype, scale);
  if (stored == 0) {
    const float smallest_normal = rule.scale_dtype == DType::kF16 ? 0x1p-14f : 0x1p-126f;
    stored = lo == 0 && hi == 0 ? rule.scale_of_zeros : smallest_normal;
  }
  return {stored, static_cast<int8_t>(zero)};
}

// A warp for each group of each row; its lanes read neighbours.
__global__ void MinMaxKernel(View<const float> weight, GridRule rule, View<float> scales,
                             View<int8_t> zeros) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t warps_of_block = blockDim.x / kWarp;
  const int64_t index = blockIdx.x * warps_of_block + threadIdx.x / kWarp;
  if (index >= scales.rows * scales.cols) return;  // the whole warp
  const int64_t row = index / scales.cols;
  const int64_t group = index % scales.cols;
  const int64_t begin = group * rule.group_size;
  const int64_t end = std::min(weight.cols, begin + rule.group_size);
  float lo = 0;
  float hi = 0;
  for (int64_t i = begin + lane; i < end; i += kWarp) {
    const float w = weight.Row(row)[i];
    lo = w < lo ? w : lo;  // a NaN is skipped
    hi = w > hi ? w : hi;
  }
  lo = WarpReduce(lo, Min());
  hi = WarpReduce(hi, Max());
  if (lane != 0) return;
  const MinMaxPoint point = SmallestGrid(lo, hi, rule);
  scales.Row(row)[group] = point.scale;
  if (!rule.symmetric) zeros.Row(row)[group] = point.zero;
}

// *nan becomes 1 where a weight is NaN: threads that write it write the same.
template <typename Kind>
__global__ void RoundKernel(View<const float> weight, GridView grid, Kind kind, View<int8_t> codes,
                            int32_t* nan) {
  ForEachElement(weight.rows, weight.cols, [&](int64_t row, int64_t i) {
    const float w = weight.Row(row)[i];
    if (std::isnan(w)) *nan = 1;
    codes.Row(row)[i] = kind.CodeOf(w, grid.At(row, i));
  });
}

}  // namespace

void CudaBackend::MinMaxGrid(Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                             Matrix scales, Matrix zero_points) {
  CheckMinMaxGrid(weight, scheme, scales, zero_points);
  const GridRule rule{scheme.GroupSizeFor(weight.cols),
                      scheme.symmetric,
                      scheme.half_range(),
                      scheme.scale_of_zeros(),
                      static_cast<float>(scheme.min_code()),
                      static_cast<float>(scheme.max_code()),
                      scheme.scale_dtype};
  constexpr int kThreads = 256;
  constexpr int64_t kWarpsOfBlock = kThreads / kWarp;
  const Matrix zeros = scheme.symmetric ? Matrix{} : zero_points;
  Launch(exec, MinMaxKernel, {(scales.size() + kWarpsOfBlock - 1) / kWarpsOfBlock, 1, kThreads, 0},
         In<float>(weight), rule, Out<float>(scales), Out<int8_t>(zeros));
}

// The flag of NaNs is read back, which waits: the call is one of few for a whole layer.
void CudaBackend::RoundToGrid(Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                              ConstMatrix scales, ConstMatrix zero_points, Matrix codes) {
  CheckRoundToGrid(weight, scheme, scales, zero_points, codes);
  if (weight.size() == 0) return;
  Workspace::Scope scope(exec.workspace);
  const Matrix nan = scope.Take(DType::kI32, 1, 1);
  Zero(exec, nan);
  WithCodes(scheme, [&](auto kind) {
    Launch(exec, RoundKernel<decltype(kind)>, Elementwise(weight.rows, weight.cols),
           In<float>(weight), GridOf(scheme, weight.cols, scales, zero_points), kind,
           Out<int8_t>(codes), nan.Row<int32_t>(0));
  });
  int32_t found = 0;
  StreamOf(exec).CopyToHost(&found, sizeof(found), nan.data, sizeof(found), sizeof(found), 1);
  Check(found == 0, "RoundToGrid: a weight is NaN");
}

}  // namespace quantmill::QUANTMILL_CUDA
