// GatherRows and ScatterAdd: what a mixture of experts moves between tokens and experts.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

class RowsTest : public BackendTest {
 protected:
  Random random_{6};
};

TEST_P(RowsTest, GatherCopiesBitForBit) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t features : {0, 1, 5, 64, 131}) {
      const Tensor x = NormalMatrix(random_, dtype, 9, features);
      if (features > 0) Set(x, 4, 0, std::numeric_limits<double>::quiet_NaN());
      for (const std::vector<int32_t>& rows :
           {std::vector<int32_t>{}, {8}, {4, 0, 4, 4, 8, 1}, {0, 1, 2, 3, 4, 5, 6, 7, 8}}) {
        const Tensor out = Empty(dtype, std::ssize(rows), features);
        backend().GatherRows(exec(), OnDevice(x), rows, out);
        const Tensor got = OnHost(out);
        for (size_t i = 0; i < rows.size(); ++i) {
          const auto at = static_cast<int64_t>(i);
          EXPECT_TRUE(SameBits(got.view().Rows(at, 1), x.view().Rows(rows[i], 1))) << i;
        }
      }
    }
  }
}

TEST_P(RowsTest, GatherOfStridedRows) {
  const Tensor x = NormalMatrix(random_, DType::kF32, 5, 40);
  const Tensor device = OnDevice(x);
  const Tensor out = Empty(DType::kF32, 2, 7);
  const std::vector<int32_t> rows = {3, 1};
  backend().GatherRows(exec(), device.view().Cols(11, 7), rows, out);
  const Tensor got = OnHost(out);
  EXPECT_TRUE(SameBits(got.view().Rows(0, 1), x.view().Rows(3, 1).Cols(11, 7)));
  EXPECT_TRUE(SameBits(got.view().Rows(1, 1), x.view().Rows(1, 1).Cols(11, 7)));
}

TEST_P(RowsTest, AddByHand) {
  const std::vector<float> x = {1, 2, 3,  //
                                4, 5, 6};
  const std::vector<float> y = {10, 10, 10,  //
                                20, 20, 20,  //
                                30, 30, 30};
  const std::vector<float> want = {12, 12.5f, 13,  //
                                   20, 20,    20,  //
                                   32, 34,    36};
  const Tensor sum = OnDevice(ViewOf(y.data(), 3, 3));
  const std::vector<int32_t> rows = {2, 0};
  const std::vector<float> factors = {2, 0.5f};
  backend().ScatterAdd(exec(), OnDevice(ViewOf(x.data(), 2, 3)), rows, factors, sum);
  EXPECT_TRUE(SameBits(OnHost(sum), ViewOf(want.data(), 3, 3)));
}

TEST_P(RowsTest, AddMatchesReference) {
  for (const int64_t features : {0, 1, 15, 64, 131, 1031}) {
    const Tensor x = NormalMatrix(random_, DType::kF32, 5, features);
    const Tensor y = NormalMatrix(random_, DType::kF32, 8, features);
    const std::vector<int32_t> rows = {7, 2, 0, 5, 3};
    std::vector<float> factors;
    for (size_t i = 0; i < rows.size(); ++i)
      factors.push_back(static_cast<float>(random_.Normal()));
    const Tensor got = OnDevice(y);
    backend().ScatterAdd(exec(), OnDevice(x), rows, factors, got);
    const Tensor want = HostTensor(DType::kF32, 8, features);
    for (int64_t r = 0; r < 8; ++r) {
      std::copy_n(y.Row<float>(r), features, want.Row<float>(r));
    }
    reference().ScatterAdd(reference_exec(), x, rows, factors, want);
    // The product may be rounded, the sum is.
    const auto bound = [&](int64_t r, int64_t c, double sum) {
      const double before = std::abs(double{y.Row<float>(r)[c]});
      return 0x1p-24 * (before + 2 * std::abs(sum)) * 1.01;
    };
    EXPECT_TRUE(Within(OnHost(got), want, bound));
  }
}

TEST_P(RowsTest, ResultsDoNotDependOnThreadsOrOtherRows) {
  const Tensor x = NormalMatrix(random_, DType::kF32, 40, 1000);
  const Tensor y = NormalMatrix(random_, DType::kF32, 40, 1000);
  std::vector<int32_t> rows;
  std::vector<float> factors;
  for (int32_t i = 0; i < 40; ++i) {
    rows.push_back(39 - i);
    factors.push_back(static_cast<float>(random_.Normal()));
  }
  const Tensor all = OnDevice(y);
  backend().ScatterAdd(exec(), OnDevice(x), rows, factors, all);
  const auto single = WithThreads(1);
  const Tensor one_by_one = single->OnDevice(y);
  for (int64_t i = 0; i < 40; ++i) {
    const auto at = static_cast<size_t>(i);
    single->backend().ScatterAdd(single->exec(), single->OnDevice(x.view().Rows(i, 1)),
                                 std::span(rows).subspan(at, 1), std::span(factors).subspan(at, 1),
                                 one_by_one);
  }
  EXPECT_TRUE(SameBits(OnHost(all), single->OnHost(one_by_one)));
}

QUANTMILL_ALL_BACKENDS(RowsTest);

}  // namespace
}  // namespace quantmill::test
