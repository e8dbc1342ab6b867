// Norm, Rope, GatedActivation and SoftCap of the cuda backend: all bound by memory bandwidth.
#include <cmath>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_plan.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/staging.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// Calls visit(float{}) or visit(BF16{}): what activations may be.
template <typename Visit>
void WithActivationType(DType dtype, const Visit& visit) {
  if (dtype == DType::kF32) return visit(float{});
  Check(dtype == DType::kBF16, "cuda: activations are F32 or BF16");
  visit(BF16{});
}

// ---- norm ----

struct NormArguments {
  bool center;
  float eps;
  float gain_offset;
  const float* gain;
  const float* bias;  // null: none
};

// A block per row, a thread for every blockDim.x-th element: the row is read three times, from the
// caches but for the first. Shared memory: the reductions' scratch.
template <typename T>
__global__ void NormKernel(View<const float> x, NormArguments norm, View<T> out) {
  SharedMemory shared;
  SharedArray<float> scratch = shared.Take<float>(kWarp);
  const float* row = x.Row(blockIdx.x);
  T* to = out.Row(blockIdx.x);
  const auto n = static_cast<double>(x.cols);
  float mean = 0;
  if (norm.center) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < x.cols; i += blockDim.x) sum += row[i];
    sum = BlockReduce(sum, 0.0f, Sum(), scratch);
    mean = static_cast<float>(static_cast<double>(sum) / n);
  }
  float squares = 0;
  for (int64_t i = threadIdx.x; i < x.cols; i += blockDim.x) {
    const float d = row[i] - mean;
    squares = fmaf(d, d, squares);
  }
  squares = BlockReduce(squares, 0.0f, Sum(), scratch);
  const double variance = static_cast<double>(squares) / n;
  const auto scale = static_cast<float>(1.0 / sqrt(variance + static_cast<double>(norm.eps)));
  for (int64_t i = threadIdx.x; i < x.cols; i += blockDim.x) {
    float y = (row[i] - mean) * scale * (norm.gain[i] + norm.gain_offset);
    if (norm.bias != nullptr) y += norm.bias[i];
    to[i] = FromFloat<T>(y);
  }
}

// Of the number of features alone, so that a row's sums do not depend on the others. Four elements
// a thread hide the latency of one row without leaving most threads idle.
constexpr int NormThreads(int64_t features) {
  const int64_t warps = (features + 4 * kWarp - 1) / (4 * kWarp);
  return static_cast<int>(std::min<int64_t>(warps, 32)) * kWarp;
}

// ---- rope ----

// A block per row. Its threads compute the cosines and sines of the row's position once (in F64:
// the exact ones, rounded), into shared memory, for all heads.
__global__ void RopeKernel(const int32_t* positions, const float* inv_freq, int half, int head_dim,
                           float amplitude, View<float> x) {
  SharedMemory shared;
  SharedArray<float> cosines = shared.Take<float>(half);
  SharedArray<float> sines = shared.Take<float>(half);
  const auto position = static_cast<float>(positions[blockIdx.x]);
  for (int i = static_cast<int>(threadIdx.x); i < half; i += static_cast<int>(blockDim.x)) {
    // The angle is a float product, as in the models' own code.
    const auto angle = static_cast<double>(position * inv_freq[i]);
    cosines[i] = static_cast<float>(cos(angle)) * amplitude;
    sines[i] = static_cast<float>(sin(angle)) * amplitude;
  }
  __syncthreads();
  const int pairs = static_cast<int>(x.cols / head_dim) * half;
  for (int p = static_cast<int>(threadIdx.x); p < pairs; p += static_cast<int>(blockDim.x)) {
    const int i = p % half;
    float* low = x.Row(blockIdx.x) + static_cast<int64_t>(p / half) * head_dim + i;
    float* high = low + half;
    const float a = *low;
    const float b = *high;
    const float c = cosines[i];
    const float s = sines[i];
    *low = fmaf(-b, s, a * c);
    *high = fmaf(a, s, b * c);
  }
}

// ---- activations ----

struct Silu {
  __device__ static float Apply(float x) { return x / (1.0f + expf(-x)); }
};

// x/2 (1 + tanh(u)) = x / (1 + e^(-2u)), which does not cancel where tanh is near -1.
struct GeluTanh {
  __device__ static float Apply(float x) {
    const float inner = fmaf(x * x, 0.044715f, 1.0f);
    const float minus_2u = x * inner * -1.5957691216057308f;  // -2 sqrt(2 / pi)
    return x / (1.0f + expf(minus_2u));
  }
};

struct Gelu {
  __device__ static float Apply(float x) { return x * 0.5f * erfcf(x * -0.70710678118654752f); }
};

struct Relu {
  __device__ static float Apply(float x) { return x < 0.0f ? 0.0f : x; }  // NaN stays
};

template <typename F, typename T>
__global__ void GateKernel(View<const float> gate, View<const float> up, View<T> out) {
  ForEachElement(out.rows, out.cols, [&](int64_t row, int64_t col) {
    float y = F::Apply(gate.Row(row)[col]);
    if (up.data != nullptr) y *= up.Row(row)[col];
    out.Row(row)[col] = FromFloat<T>(y);
  });
}

template <typename Visit>
void WithActivation(Activation activation, const Visit& visit) {
  switch (activation) {
    case Activation::kSilu:
      return visit(Silu());
    case Activation::kGeluTanh:
      return visit(GeluTanh());
    case Activation::kGelu:
      return visit(Gelu());
    case Activation::kRelu:
      return visit(Relu());
  }
}

__global__ void SoftCapKernel(float cap, View<float> x) {
  ForEachElement(x.rows, x.cols, [&](int64_t row, int64_t col) {
    float* at = x.Row(row) + col;
    *at = cap * tanhf(*at / cap);
  });
}

}  // namespace

void CudaBackend::Norm(Exec& exec, ConstMatrix x, const NormParams& params, Matrix out) {
  CheckNorm(x, params, out);
  const bool layer = params.kind == NormKind::kLayer;
  const bool has_bias = params.bias.size() > 0;
  if (x.size() == 0) return;
  const NormArguments norm{layer, params.eps, params.gain_offset, params.gain.Row<float>(0),
                           has_bias ? params.bias.Row<float>(0) : nullptr};
  const LaunchShape shape{x.rows, 1, NormThreads(x.cols), SharedBytes<float>(kWarp)};
  WithActivationType(out.dtype, [&](auto type) {
    using T = decltype(type);
    Launch(exec, NormKernel<T>, shape, In<float>(x), norm, Out<T>(out));
  });
}

void CudaBackend::Rope(Exec& exec, const BatchPlan& plan, const RopeParams& params, Matrix x) {
  CheckRope(plan, params, x);
  const CudaBatchPlan& batch = PlanOf(plan);
  if (x.size() == 0 || params.rotary_dim == 0) return;
  Workspace::Scope scope(exec.workspace);
  const float* inv_freq = OnDevice(exec, scope, params.inv_freq);
  const int64_t half = params.rotary_dim / 2;
  const LaunchShape shape{x.rows, 1, 256, 2 * SharedBytes<float>(half)};
  Launch(exec, RopeKernel, shape, batch.arrays().positions, inv_freq, half, params.head_dim,
         params.amplitude, Out<float>(x));
}

void CudaBackend::GatedActivation(Exec& exec, Activation activation, ConstMatrix gate,
                                  ConstMatrix up, Matrix out) {
  CheckGatedActivation(gate, up, out);
  WithActivation(activation, [&](auto function) {
    using F = decltype(function);
    WithActivationType(out.dtype, [&](auto type) {
      using T = decltype(type);
      Launch(exec, GateKernel<F, T>, Elementwise(out.rows, out.cols), In<float>(gate),
             In<float>(up), Out<T>(out));
    });
  });
}

void CudaBackend::SoftCap(Exec& exec, float cap, Matrix logits) {
  CheckSoftCap(cap, logits);
  Launch(exec, SoftCapKernel, Elementwise(logits.rows, logits.cols), cap, Out<float>(logits));
}

}  // namespace quantmill::QUANTMILL_CUDA
