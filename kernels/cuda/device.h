// What device sources use of CUDA. Each .cu file of this folder is compiled twice: by nvcc, and by
// the C++ compiler against tests/support/cuda_host, which runs the same kernels on a CPU. Both see
// the language extensions (__global__, threadIdx, __syncthreads, __shfl_xor_sync, ...) under CUDA's
// own names; what the language cannot give both alike is here: shared memory, and the launch
// (launch.h).
//
// QUANTMILL_CUDA, a compile definition, names the namespace of the build: cuda, or cuda_host.
#ifndef QUANTMILL_KERNELS_CUDA_DEVICE_H_
#define QUANTMILL_KERNELS_CUDA_DEVICE_H_

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "tests/support/cuda_host/emulation.h"
#endif

#include "kernels/core/dtype.h"
#include "kernels/core/matrix.h"

namespace quantmill::QUANTMILL_CUDA {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xFFFFFFFFu;

#ifdef __CUDACC__
// An array in the shared memory of a block. The host build's one checks each access, so elements
// are read into variables of a named type (`const float x = tile[i]`, not auto).
template <typename T>
using SharedArray = T*;

// The dynamic shared memory of a launch, handed out in order, 16-byte aligned; every thread of the
// block makes the same calls. Uninitialized.
class SharedMemory {
 public:
  template <typename T>
  __device__ SharedArray<T> Take(int count) {
    extern __shared__ __align__(16) unsigned char memory[];
    auto* taken = reinterpret_cast<T*>(memory + used_);
    used_ += (count * static_cast<int>(sizeof(T)) + 15) / 16 * 16;
    return taken;
  }

 private:
  int used_ = 0;
};
#endif

// What SharedMemory::Take<T>(count) uses up.
template <typename T>
constexpr size_t SharedBytes(int64_t count) {
  return (static_cast<size_t>(count) * sizeof(T) + 15) / 16 * 16;
}

// A matrix in device memory as kernels take it.
template <typename T>
struct View {
  T* data;
  int64_t rows;
  int64_t cols;
  int64_t stride;
  __device__ T* Row(int64_t r) const { return data + r * stride; }
};

template <typename T>
View<const T> In(ConstMatrix m) {
  return {m.data == nullptr ? nullptr : m.Row<T>(0), m.rows, m.cols, m.stride};
}
template <typename T>
View<T> Out(Matrix m) {
  return {m.data == nullptr ? nullptr : m.Row<T>(0), m.rows, m.cols, m.stride};
}

// Calls visit(T{}) with the C++ type of a dense float matrix.
template <typename Visit>
void WithFloatType(DType dtype, const Visit& visit) {
  switch (dtype) {
    case DType::kF32:
      return visit(float{});
    case DType::kBF16:
      return visit(BF16{});
    case DType::kF16:
      return visit(F16{});
    default:
      Check(false, "cuda: not a dense float type");
  }
}

template <typename T>
__device__ T FromFloat(float x);
template <>
__device__ inline float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ inline BF16 FromFloat<BF16>(float x) {
  return ToBF16(x);
}
template <>
__device__ inline F16 FromFloat<F16>(float x) {
  return ToF16(x);
}

// ---- reductions: every lane, or thread, gets the result; the order is that of a fixed tree ----

template <typename T, typename Combine>
__device__ T WarpReduce(T x, const Combine& combine) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    x = combine(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  return x;
}

// Over all threads of a one-dimensional block, a multiple of 32 of them, at most 1,024. scratch: 32
// elements, which may be reused after the call.
template <typename T, typename Combine>
__device__ T BlockReduce(T x, T identity, const Combine& combine, SharedArray<T> scratch) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  x = WarpReduce(x, combine);
  if (lane == 0) scratch[warp] = x;
  __syncthreads();
  T all = identity;
  if (lane < warps) all = scratch[lane];
  __syncthreads();
  return WarpReduce(all, combine);
}

struct LargestOrNaN {
  __device__ float operator()(float a, float b) const {
    if (a != a || b != b) return a + b;
    return a < b ? b : a;
  }
};

struct Sum {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Min {
  template <typename T>
  __device__ T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_DEVICE_H_
