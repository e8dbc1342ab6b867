// The host executor's PTX: which lane holds what, and when a copy arrives.
#include "kernels/cuda/ptx.h"

#include <gtest/gtest.h>

#include <bit>
#include <vector>

#include "kernels/cuda/launch.h"

namespace quantmill::cuda_host {
namespace {

class PtxTest : public testing::Test {
 protected:
  Exec& exec() { return exec_; }
  // What is there in host memory, as kernels on the host take it.
  template <typename T>
  static View<T> ViewOf(std::vector<T>& values) {
    return {values.data(), 1, std::ssize(values), std::ssize(values)};
  }

 private:
  DeviceStream stream_{std::make_shared<StreamGroup>()};
  Workspace workspace_{
      [](DType dtype, int64_t rows, int64_t cols) { return HostTensor(dtype, rows, cols); }};
  Exec exec_{stream_, workspace_};
};

// Element (row, column) of matrix m is 1000 m + 10 row + column, as an integer in the 16 bits.
constexpr uint32_t ElementOf(int m, int row, int column) {
  return static_cast<uint32_t>(1000 * m + 10 * row + column);
}

template <bool kTransposed>
__global__ void LoadKernel(View<uint32_t> out) {
  SharedMemory shared;
  const SharedArray<Octet> rows = shared.Take<Octet>(kWarp);
  const int lane = static_cast<int>(threadIdx.x);
  Octet mine;
  for (int pair = 0; pair < 4; ++pair) {
    mine.pairs[pair] =
        ElementOf(lane / 8, lane % 8, 2 * pair) | ElementOf(lane / 8, lane % 8, 2 * pair + 1) << 16;
  }
  rows[lane] = mine;
  __syncthreads();
  uint32_t loaded[4];
  if (kTransposed) {
    LoadTransposed(rows + lane, loaded);
  } else {
    LoadMatrices(rows + lane, loaded);
  }
  for (int m = 0; m < 4; ++m) out.Row(0)[4 * lane + m] = loaded[m];
}

TEST_F(PtxTest, LanesHoldPairsOfFourMatrices) {
  const LaunchShape shape{1, 1, kWarp, SharedBytes<Octet>(kWarp)};
  std::vector<uint32_t> plain(128);
  std::vector<uint32_t> transposed(128);
  Launch(exec(), LoadKernel<false>, shape, ViewOf(plain));
  Launch(exec(), LoadKernel<true>, shape, ViewOf(transposed));
  size_t at = 0;
  for (int lane = 0; lane < kWarp; ++lane) {
    const int g = lane / 4;
    const int t = lane % 4;
    for (int m = 0; m < 4; ++m, ++at) {
      EXPECT_EQ(plain[at], ElementOf(m, g, 2 * t) | ElementOf(m, g, 2 * t + 1) << 16);
      EXPECT_EQ(transposed[at], ElementOf(m, 2 * t, g) | ElementOf(m, 2 * t + 1, g) << 16);
    }
  }
}

// c = a b + c of small integers, from row-major matrices and by the lanes' places in ptx.h.
__global__ void MultiplyKernel(View<const float> a, View<const float> b, View<float> c) {
  const int g = static_cast<int>(threadIdx.x) / 4;
  const int t = static_cast<int>(threadIdx.x) % 4;
  const auto of_a = [&](int row, int column) {
    return PairBF16(a.Row(row)[column], a.Row(row)[column + 1]);
  };
  const auto of_b = [&](int row) { return PairBF16(b.Row(row)[g], b.Row(row + 1)[g]); };
  const uint32_t left[4] = {of_a(g, 2 * t), of_a(g + 8, 2 * t), of_a(g, 2 * t + 8),
                            of_a(g + 8, 2 * t + 8)};
  float sums[4] = {c.Row(g)[2 * t], c.Row(g)[2 * t + 1], c.Row(g + 8)[2 * t],
                   c.Row(g + 8)[2 * t + 1]};
  MultiplyAddBF16(left, of_b(2 * t), of_b(2 * t + 8), sums);
  c.Row(g)[2 * t] = sums[0];
  c.Row(g)[2 * t + 1] = sums[1];
  c.Row(g + 8)[2 * t] = sums[2];
  c.Row(g + 8)[2 * t + 1] = sums[3];
}

TEST_F(PtxTest, MultipliesMatrices) {
  const Tensor a = HostTensor(DType::kF32, 16, 16);
  const Tensor b = HostTensor(DType::kF32, 16, 8);
  const Tensor c = HostTensor(DType::kF32, 16, 8);
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) a.Row<float>(i)[j] = static_cast<float>((7 * i + 3 * j) % 11 - 5);
    for (int j = 0; j < 8; ++j) {
      b.Row<float>(i)[j] = static_cast<float>((5 * i + 2 * j) % 13 - 6);
      c.Row<float>(i)[j] = static_cast<float>(i - j);
    }
  }
  Launch(exec(), MultiplyKernel, {1, 1, kWarp}, In<float>(a), In<float>(b), Out<float>(c));
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 8; ++j) {
      float want = static_cast<float>(i - j);
      for (int k = 0; k < 16; ++k) want += a.Row<float>(i)[k] * b.Row<float>(k)[j];
      EXPECT_EQ(c.Row<float>(i)[j], want) << i << " " << j;
    }
  }
}

// Each thread copies an octet, and reads that of another one; what it does in between.
enum class Between { kNothing, kWait, kBarrier, kWaitAndBarrier };
template <Between kBetween>
__global__ void CopyKernel(View<const float> from, int distance, View<uint32_t> out) {
  SharedMemory shared;
  const SharedArray<Octet> octets = shared.Take<Octet>(static_cast<int>(blockDim.x));
  const auto thread = static_cast<int>(threadIdx.x);
  AsyncCopies copies;
  copies.Copy(octets + thread, reinterpret_cast<const Octet*>(from.data) + thread, thread != 5);
  copies.Commit();
  if (kBetween == Between::kWait || kBetween == Between::kWaitAndBarrier) copies.Wait<0>();
  if (kBetween == Between::kBarrier || kBetween == Between::kWaitAndBarrier) __syncthreads();
  const Octet other = octets[(thread + distance) % static_cast<int>(blockDim.x)];
  out.Row(0)[thread] = other.pairs[3];
  if (kBetween == Between::kBarrier) copies.Wait<0>();
}

TEST_F(PtxTest, ACopyArrivesWhenItIsWaitedFor) {
  alignas(16) std::vector<float> from(256);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<float>(i + 1);
  const View<const float> view{from.data(), 1, 256, 256};
  const LaunchShape shape{1, 1, 64, SharedBytes<Octet>(64)};
  std::vector<uint32_t> out(64);
  Launch(exec(), CopyKernel<Between::kWaitAndBarrier>, shape, view, 40, ViewOf(out));
  EXPECT_EQ(out[0], std::bit_cast<uint32_t>(from[4 * 40 + 3]));
  EXPECT_EQ(out[29], 0u);  // thread 5's does not exist
  Launch(exec(), CopyKernel<Between::kWait>, shape, view, 0, ViewOf(out));
  EXPECT_EQ(out[7], std::bit_cast<uint32_t>(from[4 * 7 + 3]));
  // Not waited for: what is read is NaN, never what will arrive.
  Launch(exec(), CopyKernel<Between::kBarrier>, shape, view, 0, ViewOf(out));
  EXPECT_EQ(out[0], 0xFFFFFFFFu);
}

__global__ void OverwriteKernel(View<const float> from, bool barrier) {
  SharedMemory shared;
  const SharedArray<Octet> octets = shared.Take<Octet>(64);
  octets[threadIdx.x] = Octet{};
  __syncthreads();
  const Octet other = octets[threadIdx.x ^ 32];
  if (barrier) __syncthreads();
  AsyncCopies copies;
  copies.Copy(octets + threadIdx.x, reinterpret_cast<const Octet*>(from.data), other.pairs[0] == 0);
  copies.Commit();
  copies.Wait<0>();
}

using PtxDeathTest = PtxTest;

TEST_F(PtxDeathTest, MistakesWithCopies) {
  alignas(16) std::vector<float> from(256);
  const View<const float> view{from.data(), 1, 256, 256};
  const LaunchShape shape{1, 1, 64, SharedBytes<Octet>(64)};
  std::vector<uint32_t> out(64);
  // No barrier after the wait, or no wait before the barrier: another thread's copy.
  EXPECT_DEATH(Launch(exec(), CopyKernel<Between::kBarrier>, shape, view, 40, ViewOf(out)), "race");
  EXPECT_DEATH(Launch(exec(), CopyKernel<Between::kWait>, shape, view, 40, ViewOf(out)), "race");
  EXPECT_DEATH(Launch(exec(), CopyKernel<Between::kNothing>, shape, view, 0, ViewOf(out)),
               "before its copies arrived");
  // A copy to where others may still read.
  Launch(exec(), OverwriteKernel, shape, view, true);
  EXPECT_DEATH(Launch(exec(), OverwriteKernel, shape, view, false), "race");
  const View<const float> askew{from.data() + 1, 1, 252, 252};
  EXPECT_DEATH(Launch(exec(), OverwriteKernel, shape, askew, true), "not aligned");
}

}  // namespace
}  // namespace quantmill::cuda_host
