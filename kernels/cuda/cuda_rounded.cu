// MatMul with rounded inputs (ops.h) of the cuda backend: inputs are rounded by one kernel,
// multiplied by another. It is a faithful model of the deployed arithmetic, on plain cores; tensor
// cores take the integers as they are (mma.m16n8k32.s8) where zero points are 0, and come with fast
// decoding.
#include <algorithm>
#include <limits>

#include "kernels/core/dtype.h"
#include "kernels/cuda/cuda_rounded_linear.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// How inputs are rounded, as kernels take it.
struct InputRounding {
  bool integers;
  bool dynamic;
  float scale;         // static
  float zero_point;    // static integers
  int64_t group_size;  // inputs that share a scale
};

__device__ float ScaleOf(const InputRounding& rounding, float absmax) {
  if (absmax != absmax) return absmax;
  if (!rounding.dynamic) return rounding.scale;
  if (rounding.integers) return absmax / 127.0f;
  constexpr float kLeast = 1.0f / (448.0f * 512.0f);
  const float scale = absmax / 448.0f;
  return scale < kLeast ? kLeast : scale;
}

// code - zero_point.
__device__ float RoundInteger(float scaled, float zero) {
  if (scaled != scaled) return 0;  // its scale is NaN
  const float code = fminf(fmaxf(rintf(scaled) + zero, -128.0f), 127.0f);
  return code - zero;
}

// A block rounds one group of one token: blockIdx.y is the token's index, blockIdx.x the group.
template <typename T>
__global__ void RoundInputsKernel(View<const T> x, InputRounding rounding, View<float> numbers,
                                  View<float> scales) {
  SharedMemory shared;
  const SharedArray<float> scratch = shared.Take<float>(kWarp);
  const int64_t group = blockIdx.x;
  const int64_t begin = group * rounding.group_size;
  const int64_t end = begin + rounding.group_size < x.cols ? begin + rounding.group_size : x.cols;
  for (int64_t t = blockIdx.y; t < x.rows; t += gridDim.y) {
    float absmax = 0;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
      absmax = LargestOrNaN{}(absmax, fabsf(ToFloat(x.Row(t)[i])));
    }
    absmax = BlockReduce(absmax, 0.0f, LargestOrNaN{}, scratch);
    const float scale = ScaleOf(rounding, absmax);
    const float factor = absmax > 0 ? 127.0f / absmax : 0.0f;
    for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
      const float value = ToFloat(x.Row(t)[i]);
      if (!rounding.integers) {
        numbers.Row(t)[i] = FromE4M3(ToE4M3(value / scale));
      } else {
        numbers.Row(t)[i] =
            RoundInteger(rounding.dynamic ? value * factor : value / scale, rounding.zero_point);
      }
    }
    if (threadIdx.x == 0) scales.Row(t)[group] = scale;
  }
}

constexpr int kTile = 64;     // tokens, and outputs, of a block
constexpr int kDepth = 16;    // inputs in shared memory at once
constexpr int kOfThread = 4;  // tokens, and outputs, of a thread
constexpr int kThreads = (kTile / kOfThread) * (kTile / kOfThread);
constexpr int kPitch = kTile + 1;  // odd: threads that fill a column meet no bank twice

// What the product kernel reads besides the weight.
struct RoundedInputs {
  View<const float> numbers;  // [tokens, in]
  View<const float> scales;   // [tokens, groups of inputs]
  int64_t group_size;         // of inputs
  int64_t segment;            // inputs in which no scale changes
};

template <typename Sum>
struct Accumulators {
  Sum values[kOfThread][kOfThread] = {};
};

// tile[k][r] = number(first_row + r, begin + k), 0 outside.
template <typename Sum, typename Number>
__device__ void FillTile(int64_t first_row, int64_t rows, int64_t begin, int64_t end,
                         const Number& number, SharedArray<Sum> tile) {
  for (int at = static_cast<int>(threadIdx.x); at < kTile * kDepth; at += kThreads) {
    const int r = at / kDepth;
    const int k = at % kDepth;
    const bool inside = first_row + r < rows && begin + k < end;
    tile[k * kPitch + r] = inside ? static_cast<Sum>(number(first_row + r, begin + k)) : Sum{0};
  }
}

// sums += x w^T over inputs [begin, end). Each thread has 4 x 4 outputs, kTile / 4 apart.
template <typename Sum>
__device__ void AddSegment(const RoundedInputs& x, const CodesView& w, int64_t begin, int64_t end,
                           SharedArray<Sum> x_tile, SharedArray<Sum> w_tile,
                           Accumulators<Sum>& sums) {
  constexpr int kStep = kTile / kOfThread;
  const int row = static_cast<int>(threadIdx.x) / kStep;
  const int col = static_cast<int>(threadIdx.x) % kStep;
  const auto x_number = [&](int64_t t, int64_t i) { return x.numbers.Row(t)[i]; };
  const auto w_number = [&](int64_t o, int64_t i) { return w.Number(o, i); };
  for (int64_t i = begin; i < end; i += kDepth) {
    FillTile<Sum>(static_cast<int64_t>(blockIdx.y) * kTile, x.numbers.rows, i, end, x_number,
                  x_tile);
    FillTile<Sum>(static_cast<int64_t>(blockIdx.x) * kTile, w.codes.rows, i, end, w_number, w_tile);
    __syncthreads();
    for (int k = 0; k < kDepth; ++k) {
      for (int a = 0; a < kOfThread; ++a) {
        const Sum left = x_tile[k * kPitch + row + a * kStep];
        for (int b = 0; b < kOfThread; ++b) {
          const Sum right = w_tile[k * kPitch + col + b * kStep];
          sums.values[a][b] += left * right;
        }
      }
    }
    __syncthreads();
  }
}

template <typename Sum, typename T>
__global__ void RoundedProductKernel(RoundedInputs x, CodesView w, const float* bias, bool add,
                                     View<T> y) {
  SharedMemory shared;
  const SharedArray<Sum> x_tile = shared.Take<Sum>(kDepth * kPitch);
  const SharedArray<Sum> w_tile = shared.Take<Sum>(kDepth * kPitch);
  constexpr int kStep = kTile / kOfThread;
  const int64_t first_t = static_cast<int64_t>(blockIdx.y) * kTile + threadIdx.x / kStep;
  const int64_t first_o = static_cast<int64_t>(blockIdx.x) * kTile + threadIdx.x % kStep;
  Accumulators<float> totals;
  for (int64_t begin = 0; begin < x.numbers.cols; begin += x.segment) {
    const int64_t end = begin + x.segment < x.numbers.cols ? begin + x.segment : x.numbers.cols;
    Accumulators<Sum> sums;
    AddSegment(x, w, begin, end, x_tile, w_tile, sums);
    for (int a = 0; a < kOfThread; ++a) {
      for (int b = 0; b < kOfThread; ++b) {
        const int64_t t = first_t + a * kStep;
        const int64_t o = first_o + b * kStep;
        if (t >= y.rows || o >= y.cols) continue;
        const float scaled = static_cast<float>(sums.values[a][b]) *
                             w.scales.Row(o)[begin / w.group_size] *
                             x.scales.Row(t)[begin / x.group_size];
        totals.values[a][b] = begin == 0 ? scaled : totals.values[a][b] + scaled;
      }
    }
  }
  for (int a = 0; a < kOfThread; ++a) {
    for (int b = 0; b < kOfThread; ++b) {
      const int64_t t = first_t + a * kStep;
      const int64_t o = first_o + b * kStep;
      if (t >= y.rows || o >= y.cols) continue;
      float total = totals.values[a][b];
      if (bias != nullptr) total += bias[o];
      if (add) total += ToFloat(y.Row(t)[o]);
      y.Row(t)[o] = FromFloat<T>(total);
    }
  }
}

int64_t GroupOf(int64_t wanted, int64_t in) {
  return wanted == InputScheme::kPerToken ? std::max<int64_t>(1, in) : wanted;
}

}  // namespace

void RoundedLinear::Multiply(Exec& exec, ConstMatrix x, ConstMatrix bias, MatMulMode mode,
                             Matrix y) const {
  const InputScheme& input = codes_.scheme.input;
  const InputRounding rounding = {input.type == InputScheme::Type::kInt8, input.dynamic,
                                  input_scale_,
                                  input.symmetric ? 0.0f : static_cast<float>(input_zero_point_),
                                  GroupOf(input.group_size, x.cols)};
  const int64_t groups = (x.cols + rounding.group_size - 1) / rounding.group_size;
  Workspace::Scope scope(exec.workspace);
  const Matrix numbers = scope.Take(DType::kF32, x.rows, x.cols);
  const Matrix scales = scope.Take(DType::kF32, x.rows, groups);
  WithFloatType(x.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int64_t kMostRows = 65535;
    Launch(exec, RoundInputsKernel<T>,
           {groups, std::min(x.rows, kMostRows), ThreadsFor(rounding.group_size),
            SharedBytes<float>(kWarp)},
           In<T>(x), rounding, Out<float>(numbers), Out<float>(scales));
  });
  const int64_t weight_group = GroupOf(codes_.scheme.group_size, x.cols);
  const RoundedInputs inputs = {In<float>(numbers), In<float>(scales), rounding.group_size,
                                std::min(weight_group, rounding.group_size)};
  const float* added = bias.size() == 0 ? nullptr : bias.Row<float>(0);
  const bool add = mode == MatMulMode::kAdd;
  const LaunchShape shape = {(y.cols + kTile - 1) / kTile, (y.rows + kTile - 1) / kTile, kThreads,
                             2 * SharedBytes<float>(kDepth * kPitch)};
  const bool exact = rounding.integers && codes_.scheme.code_type == CodeType::kInt;
  const auto launch = [&](auto sum, auto out) {
    Launch(exec, RoundedProductKernel<decltype(sum), decltype(out)>, shape, inputs,
           codes_.Rows(0, y.cols), added, add, Out<decltype(out)>(y));
  };
  const auto launch_into = [&](auto out) { exact ? launch(int32_t{}, out) : launch(float{}, out); };
  y.dtype == DType::kF32 ? launch_into(float{}) : launch_into(BF16{});
}

}  // namespace quantmill::QUANTMILL_CUDA
