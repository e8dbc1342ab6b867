// The parts of the CUDA language that kernels/cuda uses, for the C++ compiler: executor.h runs
// them.
#ifndef QUANTMILL_TESTS_SUPPORT_CUDA_HOST_EMULATION_H_
#define QUANTMILL_TESTS_SUPPORT_CUDA_HOST_EMULATION_H_

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/support/cuda_host/executor.h"

// NOLINTBEGIN(bugprone-reserved-identifier,readability-identifier-naming): CUDA's own names
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define threadIdx (::quantmill::cuda_host::indices.thread_index)
#define blockIdx (::quantmill::cuda_host::indices.block_index)
#define blockDim (::quantmill::cuda_host::indices.block_size)
#define gridDim (::quantmill::cuda_host::indices.grid_size)

inline void __syncthreads() { ::quantmill::cuda_host::SyncThreads(); }
inline void __syncwarp() { ::quantmill::cuda_host::SyncWarp(); }

// A lane that does not exist gives the caller's own value, as on a GPU.
template <typename T>
T __shfl_sync(unsigned /*mask*/, T x, int lane) {
  static_assert(sizeof(T) <= 8, "shuffles move up to 8 bytes");
  const std::byte* all = ::quantmill::cuda_host::ExchangeInWarp(&x, sizeof(T));
  T result = x;
  if (lane >= 0 && lane < ::quantmill::cuda_host::LanesInWarp()) {
    std::memcpy(&result, all + lane * 64, sizeof(T));
  }
  return result;
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T x, int distance) {
  return __shfl_sync(mask, x, static_cast<int>(threadIdx.x % 32) ^ distance);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T x, int distance) {
  return __shfl_sync(mask, x, static_cast<int>(threadIdx.x % 32) - distance);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T x, int distance) {
  return __shfl_sync(mask, x, static_cast<int>(threadIdx.x % 32) + distance);
}
inline unsigned __ballot_sync(unsigned /*mask*/, bool vote) {
  const std::byte* all = ::quantmill::cuda_host::ExchangeInWarp(&vote, sizeof(vote));
  unsigned votes = 0;
  for (int lane = 0; lane < ::quantmill::cuda_host::LanesInWarp(); ++lane) {
    if (all[lane * 64] != std::byte{0}) votes |= 1u << lane;
  }
  return votes;
}
// Blocks and fibers run one at a time: a plain sum is atomic.
template <typename T>
T atomicAdd(T* to, T x) {
  const T before = *to;
  *to = before + x;
  return before;
}
inline int min(int a, int b) { return b < a ? b : a; }
inline int max(int a, int b) { return a < b ? b : a; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
// NOLINTEND(bugprone-reserved-identifier,readability-identifier-naming)

namespace quantmill::QUANTMILL_CUDA {

// An element of shared memory: reading and writing tell the executor.
template <typename T>
class SharedElement {
 public:
  SharedElement(T* element, int array, size_t index)
      : element_(element), array_(array), index_(index) {}
  SharedElement(const SharedElement&) = default;
  operator T() const {  // NOLINT(google-explicit-constructor): reads as the element itself
    cuda_host::block_memory->Read(array_, index_, static_cast<int>(threadIdx.x));
    return *element_;
  }
  SharedElement& operator=(T x) {
    cuda_host::block_memory->Write(array_, index_, static_cast<int>(threadIdx.x));
    *element_ = x;
    return *this;
  }
  // NOLINTNEXTLINE(bugprone-unhandled-self-assignment): a value is read and written, whosever it is
  SharedElement& operator=(const SharedElement& other) { return *this = static_cast<T>(other); }
  SharedElement& operator+=(T x) { return *this = static_cast<T>(static_cast<T>(*this) + x); }

 private:
  T* element_;
  int array_;
  size_t index_;
};

// Pointer-like, as SharedArray of device.h is under nvcc.
template <typename T>
class SharedArray {
 public:
  SharedArray(T* data, int array, int64_t offset) : data_(data), array_(array), offset_(offset) {}
  SharedElement<T> operator[](int64_t i) const {
    // A negative index becomes a huge one, which the executor refuses.
    return {data_ + offset_ + i, array_, static_cast<size_t>(offset_ + i)};
  }
  SharedArray operator+(int64_t distance) const { return {data_, array_, offset_ + distance}; }

 private:
  T* data_;
  int array_;
  int64_t offset_;
};

class SharedMemory {
 public:
  template <typename T>
  SharedArray<T> Take(int count) {
    std::byte* memory =
        cuda_host::block_memory->Take(arrays_, sizeof(T), static_cast<size_t>(count));
    return {reinterpret_cast<T*>(memory), arrays_++, 0};
  }

 private:
  int arrays_ = 0;
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_TESTS_SUPPORT_CUDA_HOST_EMULATION_H_
