// The host executor of CUDA kernels: what it computes, and the mistakes that it must find.
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"

namespace quantmill::cuda_host {
namespace {

class ExecutorTest : public testing::Test {
 protected:
  ExecutorTest()
      : workspace_([](DType dtype, int64_t rows, int64_t cols) {
          return HostTensor(dtype, rows, cols);
        }) {}
  Exec& exec() { return exec_; }

 private:
  DeviceStream stream_{std::make_shared<StreamGroup>()};
  Workspace workspace_;
  Exec exec_{stream_, workspace_};
};

__global__ void IndexKernel(View<float> out) {
  out.Row(blockIdx.x * gridDim.y + blockIdx.y)[threadIdx.x] =
      static_cast<float>(blockIdx.x * 1000 + blockIdx.y * 100 + threadIdx.x);
}

TEST_F(ExecutorTest, EveryThreadOfTheGridRuns) {
  const Tensor out = HostTensor(DType::kF32, 6, 40);
  Launch(exec(), IndexKernel, {3, 2, 40}, Out<float>(out));
  for (int64_t x = 0; x < 3; ++x) {
    for (int64_t y = 0; y < 2; ++y) {
      for (int64_t t = 0; t < 40; ++t) {
        EXPECT_EQ(out.Row<float>(x * 2 + y)[t], static_cast<float>(x * 1000 + y * 100 + t));
      }
    }
  }
}

// Sums a row by a tree in shared memory.
__global__ void TreeSumKernel(View<const float> x, View<float> out) {
  SharedMemory shared;
  const SharedArray<float> sums = shared.Take<float>(static_cast<int>(blockDim.x));
  sums[threadIdx.x] = x.Row(blockIdx.x)[threadIdx.x];
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) {
      const float other = sums[threadIdx.x + half];
      sums[threadIdx.x] += other;
    }
  }
  if (threadIdx.x == 0) out.Row(0)[blockIdx.x] = sums[0];
}

__global__ void BlockReduceKernel(View<const float> x, View<float> out) {
  SharedMemory shared;
  const SharedArray<float> scratch = shared.Take<float>(kWarp);
  const float value = x.Row(blockIdx.x)[threadIdx.x];
  const float sum = BlockReduce(value, 0.0f, Sum{}, scratch);
  const float max = BlockReduce(value, -1.0f, Max{}, scratch);
  if (threadIdx.x == blockDim.x - 1) {
    out.Row(0)[blockIdx.x] = sum;
    out.Row(1)[blockIdx.x] = max;
  }
}

TEST_F(ExecutorTest, BarriersAndShufflesExchangeValues) {
  const Tensor x = HostTensor(DType::kF32, 3, 128);
  std::iota(x.Row<float>(0), x.Row<float>(0) + 3 * 128, 0.0f);
  const Tensor tree = HostTensor(DType::kF32, 1, 3);
  Launch(exec(), TreeSumKernel, {3, 1, 128, SharedBytes<float>(128)}, In<float>(x),
         Out<float>(tree));
  const Tensor reduced = HostTensor(DType::kF32, 2, 3);
  Launch(exec(), BlockReduceKernel, {3, 1, 128, SharedBytes<float>(kWarp)}, In<float>(x),
         Out<float>(reduced));
  for (int64_t r = 0; r < 3; ++r) {
    const auto want = static_cast<float>(128 * 128 * r + 127 * 64);
    EXPECT_EQ(tree.Row<float>(0)[r], want);
    EXPECT_EQ(reduced.Row<float>(0)[r], want);
    EXPECT_EQ(reduced.Row<float>(1)[r], static_cast<float>(128 * r + 127));
  }
}

__global__ void LanesKernel(View<float> out) {
  const auto lane = static_cast<int>(threadIdx.x);
  out.Row(0)[lane] = __shfl_sync(kAllLanes, static_cast<float>(lane), 5);
  out.Row(1)[lane] = __shfl_up_sync(kAllLanes, static_cast<float>(lane), 1);
  out.Row(2)[lane] = __shfl_down_sync(kAllLanes, static_cast<float>(lane), 3);
  out.Row(3)[lane] = static_cast<float>(__ballot_sync(kAllLanes, lane % 8 == 1) >> 16);
}

TEST_F(ExecutorTest, ShufflesAndVotesOfOneWarp) {
  const Tensor out = HostTensor(DType::kF32, 4, 32);
  Launch(exec(), LanesKernel, {1, 1, 32}, Out<float>(out));
  for (int64_t lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(out.Row<float>(0)[lane], 5);
    EXPECT_EQ(out.Row<float>(1)[lane], static_cast<float>(lane == 0 ? 0 : lane - 1));
    EXPECT_EQ(out.Row<float>(2)[lane], static_cast<float>(lane < 29 ? lane + 3 : lane));
    EXPECT_EQ(out.Row<float>(3)[lane], static_cast<float>(0x0202));
  }
}

// Each thread reads what its neighbour wrote; `kBarrier` is what lies between.
enum class Barrier { kNone, kWarp, kBlock };
template <Barrier kBarrier>
__global__ void NeighbourKernel(int distance, View<float> out) {
  SharedMemory shared;
  const SharedArray<float> values = shared.Take<float>(static_cast<int>(blockDim.x));
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (kBarrier == Barrier::kWarp) __syncwarp();
  if (kBarrier == Barrier::kBlock) __syncthreads();
  out.Row(0)[threadIdx.x] = values[(threadIdx.x + static_cast<unsigned>(distance)) % blockDim.x];
}

using ExecutorDeathTest = ExecutorTest;

TEST_F(ExecutorDeathTest, RaceOnSharedMemory) {
  const Tensor out = HostTensor(DType::kF32, 1, 64);
  const LaunchShape shape = {1, 1, 64, SharedBytes<float>(64)};
  Launch(exec(), NeighbourKernel<Barrier::kBlock>, shape, 40, Out<float>(out));
  EXPECT_EQ(out.Row<float>(0)[30], 6);
  EXPECT_DEATH(Launch(exec(), NeighbourKernel<Barrier::kNone>, shape, 1, Out<float>(out)), "race");
  // A barrier of the warp does not order two warps.
  EXPECT_DEATH(Launch(exec(), NeighbourKernel<Barrier::kWarp>, shape, 40, Out<float>(out)), "race");
}

TEST_F(ExecutorTest, ABarrierOfTheWarpOrdersItsLanes) {
  const Tensor out = HostTensor(DType::kF32, 1, 32);
  Launch(exec(), NeighbourKernel<Barrier::kWarp>, {1, 1, 32, SharedBytes<float>(32)}, 31,
         Out<float>(out));
  EXPECT_EQ(out.Row<float>(0)[0], 31);
}

__global__ void SameElementKernel() {
  SharedMemory shared;
  shared.Take<int32_t>(1)[0] = 7;
}

TEST_F(ExecutorDeathTest, TwoWritersOfOneElement) {
  EXPECT_DEATH(Launch(exec(), SameElementKernel, {1, 1, 2, SharedBytes<int32_t>(1)}), "race");
}

__global__ void SharedIndexKernel(int index) {
  SharedMemory shared;
  if (threadIdx.x == 0) shared.Take<float>(8)[index] = 1;
}

TEST_F(ExecutorDeathTest, OutsideSharedMemory) {
  const LaunchShape shape = {1, 1, 32, SharedBytes<float>(8)};
  Launch(exec(), SharedIndexKernel, shape, 7);
  EXPECT_DEATH(Launch(exec(), SharedIndexKernel, shape, 8), "outside: 8 of");
  EXPECT_DEATH(Launch(exec(), SharedIndexKernel, shape, -1), "outside: -1 of");
  EXPECT_DEATH(Launch(exec(), SharedIndexKernel, {1, 1, 32, 0}, 7), "more shared memory");
}

__global__ void ReturnsEarlyKernel() {
  if (threadIdx.x > 3) return;
  __syncthreads();
}
__global__ void DifferentBarriersKernel() {
  threadIdx.x<32 && threadIdx.x> 3 ? __syncthreads() : __syncwarp();
}

TEST_F(ExecutorDeathTest, BarriersThatNotAllReach) {
  EXPECT_DEATH(Launch(exec(), ReturnsEarlyKernel, {1, 1, 32}), "have returned");
  EXPECT_DEATH(Launch(exec(), DifferentBarriersKernel, {1, 1, 64}), "different barriers");
}

#ifdef __SANITIZE_ADDRESS__
__global__ void GlobalIndexKernel(View<const float> x, int64_t index, View<float> out) {
  out.Row(0)[0] = x.Row(0)[index];
}

TEST_F(ExecutorDeathTest, OutsideGlobalMemory) {
  const Tensor x = Tensor(Matrix{AllocateDevice(256), DType::kF32, 1, 64, 64}, FreeDevice);
  const Tensor out = HostTensor(DType::kF32, 1, 1);
  Launch(exec(), GlobalIndexKernel, {1, 1, 1}, In<float>(x), 63, Out<float>(out));
  EXPECT_DEATH(Launch(exec(), GlobalIndexKernel, {1, 1, 1}, In<float>(x), 64, Out<float>(out)),
               "heap-buffer-overflow");
}
#endif

}  // namespace
}  // namespace quantmill::cuda_host
