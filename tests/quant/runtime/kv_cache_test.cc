#include "quant/runtime/kv_cache.h"

#include <gtest/gtest.h>

#include "kernels/select.h"
#include "tests/support/backends.h"

namespace quantmill {
namespace {

TEST(BlockAllocator, LowestFreeBlockFirst) {
  BlockAllocator allocator(3);
  EXPECT_EQ(allocator.Allocate(), 0);
  EXPECT_EQ(allocator.Allocate(), 1);
  allocator.Release(0);
  EXPECT_EQ(allocator.Allocate(), 0);
  EXPECT_EQ(allocator.free(), 1);
}

TEST(BlockAllocator, HardLimit) {
  BlockAllocator allocator(1);
  allocator.Allocate();
  try {
    allocator.Allocate();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
  }
}

TEST(BlockAllocator, SharedBlocksAreFreedByTheLastUser) {
  BlockAllocator allocator(2);
  const int32_t block = allocator.Allocate();
  allocator.Share(block);
  allocator.Release(block);
  EXPECT_EQ(allocator.free(), 1);
  allocator.Release(block);
  EXPECT_EQ(allocator.free(), 2);
  EXPECT_DEATH(allocator.Release(block), "releasing a free block");
}

class KvSequenceTest : public testing::Test {
 protected:
  KvSequenceTest()
      : run_(CpuBackend(AvailableIsas().front(), 1)),
        cache_(run_.backend(), run_.exec(), {1, 6, 1, 8, DType::kF32}) {}

  test::BackendRun run_;
  KvCache cache_;
};

TEST_F(KvSequenceTest, StepsCoverTheirPositions) {
  KvSequence sequence(cache_);
  SequenceStep step = sequence.Append(17, 5);
  EXPECT_EQ(step.first_row, 5);
  EXPECT_EQ(step.context, 0);
  EXPECT_EQ(step.block_table.size(), 2u);
  step = sequence.Append(15, 0);
  EXPECT_EQ(step.context, 17);
  EXPECT_EQ(step.block_table.size(), 2u);
  step = sequence.Append(1, 0);
  EXPECT_EQ(step.block_table.size(), 3u);
  EXPECT_EQ(sequence.length(), 33);
}

TEST_F(KvSequenceTest, AppendThatDoesNotFitChangesNothing) {
  KvSequence sequence(cache_);
  sequence.Append(20, 0);
  EXPECT_THROW(sequence.Append(16 * 6, 0), Error);
  EXPECT_EQ(sequence.length(), 20);
  EXPECT_EQ(cache_.allocator().free(), 4);
}

TEST_F(KvSequenceTest, TruncateAndDestructionGiveBlocksBack) {
  {
    KvSequence sequence(cache_);
    sequence.Append(40, 0);
    sequence.Truncate(16);
    EXPECT_EQ(cache_.allocator().free(), 5);
  }
  EXPECT_EQ(cache_.allocator().free(), 6);
}

TEST_F(KvSequenceTest, ForkSharesUntilWritten) {
  KvSequence parent(cache_);
  parent.Append(20, 0);
  KvSequence child = parent.Fork();
  EXPECT_EQ(cache_.allocator().free(), 4);
  const int32_t shared = parent.block_table()[1];
  child.Append(1, 0);  // writes into the shared, partly filled block: copied first
  EXPECT_NE(child.block_table()[1], shared);
  EXPECT_EQ(child.block_table()[0], parent.block_table()[0]);
  EXPECT_EQ(cache_.allocator().references(shared), 1);
}

TEST_F(KvSequenceTest, ForkAtABlockBoundaryCopiesNothing) {
  KvSequence parent(cache_);
  parent.Append(16, 0);
  KvSequence child = parent.Fork();
  child.Append(1, 0);
  EXPECT_EQ(child.block_table()[0], parent.block_table()[0]);
  EXPECT_EQ(cache_.allocator().free(), 4);
}

TEST_F(KvSequenceTest, MovedFromSequenceOwnsNothing) {
  KvSequence a(cache_);
  a.Append(3, 0);
  KvSequence b = std::move(a);
  EXPECT_EQ(b.length(), 3);
  KvSequence c(cache_);
  c.Append(30, 0);
  c = std::move(b);
  EXPECT_EQ(cache_.allocator().free(), 5);
}

}  // namespace
}  // namespace quantmill
