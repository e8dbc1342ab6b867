// kernels/workspace.h.
#include "kernels/workspace.h"

#include <gtest/gtest.h>

#include <cstring>

namespace quantmill::test {
namespace {

class WorkspaceTest : public testing::Test {
 protected:
  Tensor Allocate(DType dtype, int64_t rows, int64_t cols) {
    ++allocations_;
    return HostTensor(dtype, rows, cols);
  }

  int allocations_ = 0;
  Workspace workspace_{
      [this](DType dtype, int64_t rows, int64_t cols) { return Allocate(dtype, rows, cols); }};
};

// Writes the whole matrix, so that sanitizers see an overlap or an overrun.
void Scribble(Matrix m, int value) {
  std::memset(m.data, value, static_cast<size_t>(m.size() * SizeOf(m.dtype)));
}

TEST_F(WorkspaceTest, GivesAlignedDisjointMemory) {
  Workspace::Scope scope(workspace_);
  const Matrix a = scope.Take(DType::kF32, 3, 5);
  const Matrix b = scope.Take(DType::kI8, 1, 100);
  const Matrix empty = scope.Take(DType::kF32, 0, 7);
  const Matrix c = scope.Take(DType::kF64, 1000, 1000);  // needs a chunk of its own
  for (const Matrix& m : {a, b, c}) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(m.data) % 64, 0u);
    EXPECT_TRUE(m.contiguous());
  }
  EXPECT_EQ(empty.size(), 0);
  Scribble(a, 1);
  Scribble(b, 2);
  Scribble(c, 3);
  EXPECT_EQ(static_cast<const char*>(a.data)[59], 1);
  EXPECT_EQ(b.Row<int8_t>(0)[99], 2);
}

TEST_F(WorkspaceTest, ReusesMemoryAcrossScopes) {
  const auto use = [&] {
    Workspace::Scope scope(workspace_);
    Scribble(scope.Take(DType::kF32, 100, 1000), 1);
    Scribble(scope.Take(DType::kF32, 50, 1000), 2);
  };
  use();
  use();  // one chunk of the whole size replaces the first ones
  const int before = allocations_;
  for (int i = 0; i < 5; ++i) use();
  EXPECT_EQ(allocations_, before);
  EXPECT_GE(workspace_.bytes(), 600000);
}

// Memory that is too small for what is asked next is not held beside it.
TEST_F(WorkspaceTest, HoldsNoMoreThanIsTaken) {
  for (const int64_t bytes : {1 << 20, 1 << 21, 1 << 22}) {
    Workspace::Scope scope(workspace_);
    scope.Take(DType::kI8, 0, 1);
    Workspace::Scope inner(workspace_);
    Scribble(inner.Take(DType::kI8, 1, bytes), 1);
    EXPECT_EQ(workspace_.bytes(), bytes);
  }
  {
    Workspace::Scope scope(workspace_);
    Scribble(scope.Take(DType::kI8, 1, 1 << 20), 1);
    Scribble(scope.Take(DType::kI8, 1, 1 << 22), 2);  // the rest of 4 MiB is too small
  }
  Workspace::Scope scope(workspace_);
  Scribble(scope.Take(DType::kI8, 1, 1 << 20), 1);
  Scribble(scope.Take(DType::kI8, 1, 1 << 22), 2);
  EXPECT_EQ(workspace_.bytes(), 5 << 20);
}

TEST_F(WorkspaceTest, ScopesNest) {
  Workspace::Scope outer(workspace_);
  const Matrix kept = outer.Take(DType::kI8, 1, 1000);
  Scribble(kept, 5);
  void* first = nullptr;
  for (int i = 0; i < 3; ++i) {
    Workspace::Scope inner(workspace_);
    const Matrix scratch = inner.Take(DType::kI8, 1, 1000);
    if (first == nullptr) first = scratch.data;
    EXPECT_EQ(scratch.data, first);  // given back when the inner scope ended
    Scribble(scratch, 6);
    Scribble(inner.Take(DType::kI8, 1, 1 << 20), 7);  // another chunk, given back as well
  }
  EXPECT_EQ(kept.Row<int8_t>(0)[999], 5);
}

TEST_F(WorkspaceTest, TrimReturnsEverything) {
  {
    Workspace::Scope scope(workspace_);
    scope.Take(DType::kF32, 10, 10);
    EXPECT_DEATH(workspace_.Trim(), "Trim");
  }
  EXPECT_GT(workspace_.bytes(), 0);
  workspace_.Trim();
  EXPECT_EQ(workspace_.bytes(), 0);
  {
    Workspace::Scope scope(workspace_);
    Scribble(scope.Take(DType::kF32, 1000, 1000), 1);
  }
  workspace_.Trim();
  Workspace::Scope scope(workspace_);
  Scribble(scope.Take(DType::kF32, 10, 10), 1);
  EXPECT_LT(workspace_.bytes(), 1'000'000);  // how much it was is forgotten
}

}  // namespace
}  // namespace quantmill::test
