// AddRange on every backend: exact, so the reference's bits are wanted.
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

class RangeTest : public BackendTest {
 protected:
  // The start of a running range.
  static Tensor EmptyRange(int64_t in) {
    Tensor range = HostTensor(DType::kF32, 2, in);
    Fill(range.view().Rows(0, 1), std::numeric_limits<double>::infinity());
    Fill(range.view().Rows(1, 1), -std::numeric_limits<double>::infinity());
    return range;
  }
  Tensor After(const std::vector<ConstMatrix>& batches, int64_t in) {
    const Tensor range = OnDevice(EmptyRange(in));
    for (const ConstMatrix& x : batches) {
      backend().AddRange(exec(), OnDevice(x), range);
    }
    return OnHost(range);
  }

  Random random_{5};
};

TEST_P(RangeTest, ByHand) {
  const std::vector<float> values = {1, -2, 5,  //
                                     3, -7, 5,  //
                                     2, 4,  5};
  const std::vector<float> want = {1, -7, 5,  //
                                   3, 4,  5};
  const Tensor got = After({ViewOf(values.data(), 3, 3)}, 3);
  EXPECT_TRUE(SameBits(got, ViewOf(want.data(), 2, 3)));
}

TEST_P(RangeTest, MatchesReferenceOverBatches) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t in : {0, 1, 3, 15, 16, 63, 64, 65, 131, 576}) {
      SCOPED_TRACE(std::string(NameOf(dtype)) + ", in " + std::to_string(in));
      const Tensor first = NormalMatrix(random_, dtype, 37, in);
      const Tensor second = NormalMatrix(random_, dtype, 1, in);
      const Tensor none = HostTensor(dtype, 0, in);
      const Tensor want = EmptyRange(in);
      for (const Tensor* x : {&first, &second, &none}) {
        reference().AddRange(reference_exec(), *x, want);
      }
      EXPECT_TRUE(SameBits(After({first, second, none}, in), want));
    }
  }
}

TEST_P(RangeTest, StridedRows) {
  const Tensor x = NormalMatrix(random_, DType::kF32, 9, 150);
  const Tensor device = OnDevice(x);
  const Tensor range = OnDevice(EmptyRange(70));
  backend().AddRange(exec(), device.view().Cols(11, 70), range);
  const Tensor want = EmptyRange(70);
  reference().AddRange(reference_exec(), x.view().Cols(11, 70), want);
  EXPECT_TRUE(SameBits(OnHost(range), want));
}

TEST_P(RangeTest, NanStaysInItsColumn) {
  for (const int64_t in : {5, 64}) {
    const Tensor x = NormalMatrix(random_, DType::kF32, 4, in);
    Set(x, 1, 2, std::numeric_limits<double>::quiet_NaN());
    const Tensor got = After({x, NormalMatrix(random_, DType::kF32, 3, in)}, in);
    for (int64_t i = 0; i < in; ++i) {
      EXPECT_EQ(std::isnan(got.Row<float>(0)[i]), i == 2) << i;
      EXPECT_EQ(std::isnan(got.Row<float>(1)[i]), i == 2) << i;
    }
  }
}

QUANTMILL_ALL_BACKENDS(RangeTest);

}  // namespace
}  // namespace quantmill::test
