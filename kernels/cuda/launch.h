// Launches kernels: one typed call for both builds (device.h).
#ifndef QUANTMILL_KERNELS_CUDA_LAUNCH_H_
#define QUANTMILL_KERNELS_CUDA_LAUNCH_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/runtime.h"

namespace quantmill::QUANTMILL_CUDA {

// A one- or two-dimensional grid of one-dimensional blocks.
struct LaunchShape {
  int64_t blocks = 0;    // in x; 0: nothing is launched
  int64_t blocks_y = 1;  // at most 65,535
  int threads = 256;
  size_t shared_bytes = 0;
};

// Threads of a block that goes over `elements` elements: whole warps, no more than have work.
constexpr int ThreadsFor(int64_t elements) {
  constexpr int64_t kMostThreads = 256;
  const int64_t warps = std::max<int64_t>(1, (elements + kWarp - 1) / kWarp);
  return static_cast<int>(std::min(warps * kWarp, kMostThreads));
}

// For kernels that visit each element of a matrix once (ForEachElement).
constexpr LaunchShape Elementwise(int64_t rows, int64_t cols) {
  constexpr int64_t kMostBlocks = 1 << 16;
  constexpr int64_t kMostColumnBlocks = 64;
  const int threads = ThreadsFor(cols);
  const int64_t columns_of_block = 4 * threads;
  return {std::min(rows, kMostBlocks),
          std::min((cols + columns_of_block - 1) / columns_of_block, kMostColumnBlocks), threads,
          0};
}

// Enqueues kernel(args...) on the stream of `exec`. Arguments are copied, so views are taken, not
// what owns them. A launch that the device refuses is a bug: Check.
template <typename... Parameters, typename... Arguments>
void Launch(Exec& exec, void (*kernel)(Parameters...), const LaunchShape& shape,
            Arguments... arguments) {
  if (shape.blocks == 0 || shape.blocks_y == 0) return;
  Check(shape.blocks <= INT32_MAX && shape.blocks_y <= 65535, "cuda: the grid is too large");
  const dim3 grid(static_cast<unsigned>(shape.blocks), static_cast<unsigned>(shape.blocks_y));
  const dim3 block(static_cast<unsigned>(shape.threads));
  DeviceStream& stream = StreamOf(exec);
#ifdef __CUDACC__
  constexpr size_t kWithoutAsking = 48 * 1024;
  if (shape.shared_bytes > kWithoutAsking) {
    CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   static_cast<int>(shape.shared_bytes)));
  }
  kernel<<<grid, block, shape.shared_bytes, stream.handle()>>>(
      static_cast<Parameters>(arguments)...);
  CheckCuda(cudaGetLastError());
#else
  stream.RunGrid(grid, block, shape.shared_bytes,
                 [&] { kernel(static_cast<Parameters>(arguments)...); });
#endif
}

// visit(row, col) for the elements of this thread, under the shape Elementwise(rows, cols): rows go
// over blocks in x and columns over threads, so that neighbours read neighbours and nothing is
// divided.
template <typename Visit>
__device__ void ForEachElement(int64_t rows, int64_t cols, const Visit& visit) {
  const int64_t columns_of_step = static_cast<int64_t>(gridDim.y) * blockDim.x;
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    for (int64_t col = static_cast<int64_t>(blockIdx.y) * blockDim.x + threadIdx.x; col < cols;
         col += columns_of_step) {
      visit(row, col);
    }
  }
}

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_LAUNCH_H_
