// Memory of the cuda backend, on the host executor: what is given back is given out again, never
// more is held than tensors took at their most, and nobody touches what has no owner.
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/runtime.h"
#include "tests/support/cuda_host/device_memory.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace quantmill::cuda_host {
namespace {

float FirstOf(const Tensor& tensor) {
  const DeviceAccess access;
  return tensor.Row<float>(0)[0];
}

TEST(CudaMemory, GivesTheSameSizeOutAgainWithoutItsContents) {
  const CudaMemory memory(0);
  memory.Allocate(DType::kF32, 100, 100);  // the most that is taken, so that nothing is freed below
  std::optional<Tensor> first = memory.Allocate(DType::kF32, 4, 8);
  const void* at = first->view().data;
  {
    const DeviceAccess access;
    first->Row<float>(0)[0] = 5;
  }
  first.reset();
  const Tensor of_other_size = memory.Allocate(DType::kF32, 4, 7);
  EXPECT_NE(of_other_size.view().data, at);
  const Tensor again = memory.Allocate(DType::kBF16, 8, 8);  // as many bytes
  EXPECT_EQ(again.view().data, at);
  const DeviceAccess access;
  EXPECT_NE(again.Row<BF16>(0)[1].bits, 0x40A0);  // the upper half of 5
}

// 3 + 3 units, then 4 + 2: what is kept for units of 3 goes when others are taken.
TEST(CudaMemory, TakesNoMoreThanTensorsDidAtTheirMost) {
  const CudaMemory memory(100);
  constexpr int64_t kUnit = 1024;
  const auto take = [&](int64_t units) { return memory.Allocate(DType::kU8, units, kUnit); };
  std::vector<Tensor> held;
  held.push_back(take(3));
  held.push_back(take(3));
  EXPECT_EQ(memory.peak(), 100 + 6 * kUnit);
  const void* second = held[1].view().data;
  held.clear();
  held.push_back(take(2));  // 3 + 3 are kept: one of them goes
  held.push_back(take(3));
  EXPECT_EQ(held[1].view().data, second);
  EXPECT_EQ(memory.peak(), 100 + 6 * kUnit);
}

TEST(CudaMemory, KeepsTheLimitAndCountsWhatItKeepsAsFree) {
  CudaMemory memory(0);
  memory.Limit(1000);
  for (const int64_t bytes : {1000, 999, 1, 500, 1000}) {
    EXPECT_NO_THROW(memory.Allocate(DType::kU8, 1, bytes));
  }
  const Tensor held = memory.Allocate(DType::kU8, 1, 600);
  try {
    memory.Allocate(DType::kU8, 1, 401);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
    EXPECT_EQ(error.where(), "--max-gpu-mem");
  }
  EXPECT_EQ(memory.peak(), 1000);
}

TEST(CudaMemory, TensorsOutliveItAndGoToOtherThreads) {
  auto memory = std::make_unique<CudaMemory>(0);
  Tensor made;
  std::thread([&] { made = memory->Allocate(DType::kF32, 1, 100); }).join();
  DeviceStream stream(memory->streams());
  memory.reset();
  stream.ZeroOnDevice(made.view().data, 400, 400, 1);
  EXPECT_EQ(FirstOf(made), 0);
}

#ifdef __SANITIZE_ADDRESS__
TEST(CudaMemory, WhatHasNoOwnerIsPoisonedForKernelsToo) {
  const CudaMemory memory(0);
  std::optional<Tensor> tensor = memory.Allocate(DType::kF32, 4, 8);
  const Tensor other = memory.Allocate(DType::kF32, 4, 8);
  void* at = tensor->view().data;
  {
    const DeviceAccess access;
    EXPECT_FALSE(__asan_address_is_poisoned(at));
  }
  tensor.reset();
  const DeviceAccess access;
  EXPECT_TRUE(__asan_address_is_poisoned(at));
  EXPECT_FALSE(__asan_address_is_poisoned(other.view().data));
}
#endif

// Copies of page-locked memory come as late as they may.
TEST(DeviceStream, CopiesOfLockedMemoryAreThereWhenTheyAreWaitedFor) {
  const CudaMemory memory(0);
  DeviceStream copies(memory.streams());
  DeviceStream computes(memory.streams());
  const Tensor device = memory.Allocate(DType::kF32, 1, 4);
  constexpr int64_t kBytes = 4 * sizeof(float);
  auto* host = static_cast<float*>(AllocateLocked(2 * kBytes));
  EXPECT_TRUE(IsLocked(host + 7));
  EXPECT_FALSE(IsLocked(host + 8));
  std::fill_n(host, 8, 3.0f);
  computes.ZeroOnDevice(device.view().data, kBytes, kBytes, 1);
  copies.CopyToDevice(device.view().data, kBytes, host, kBytes, kBytes, 1);
  EXPECT_EQ(FirstOf(device), 0);  // nobody waited
  computes.RunAfter(copies);
  EXPECT_EQ(FirstOf(device), 3);
  computes.ZeroOnDevice(device.view().data, kBytes, kBytes, 1);
  copies.RunAfter(computes);
  copies.CopyToHostLater(host + 4, kBytes, device.view().data, kBytes, kBytes, 1);
  EXPECT_EQ(host[4], 3);
  copies.Synchronize();
  EXPECT_EQ(host[4], 0);
  FreeLocked(host);
}

}  // namespace
}  // namespace quantmill::cuda_host
