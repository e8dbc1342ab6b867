// The host executor's queue of copies: each is done as late as the contract allows, so that code
// which waits too little gives wrong numbers.
#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/core/matrix.h"
#include "kernels/cuda/runtime.h"
#include "tests/support/random.h"

namespace quantmill::cuda_host {
namespace {

TEST(CopyQueue, ASlotIsGivenOutWhenItsCopyIsDone) {
  DeviceStream stream(std::make_shared<StreamGroup>());
  CopyQueue& queue = stream.uploads();
  ASSERT_EQ(CopyQueue::kSlots, 2);
  const Tensor to = HostTensor(DType::kF32, 3, 4);
  test::Fill(to, -1);
  const auto put = [&](float value) {
    auto* slot = reinterpret_cast<float*>(queue.NextSlot());
    std::fill_n(slot, 4, value);
    queue.CopySlot(to.Row<float>(static_cast<int64_t>(value)), 16, 16, 1);
  };
  put(0);
  put(1);
  EXPECT_EQ(to.Row<float>(0)[0], -1);  // neither was waited for
  EXPECT_EQ(to.Row<float>(1)[0], -1);
  put(2);
  EXPECT_EQ(to.Row<float>(0)[3], 0);  // with its slot
  EXPECT_EQ(to.Row<float>(1)[0], -1);
  queue.FinishBefore(stream);
  EXPECT_EQ(to.Row<float>(1)[3], 1);
  EXPECT_EQ(to.Row<float>(2)[3], 2);
}

}  // namespace
}  // namespace quantmill::cuda_host
