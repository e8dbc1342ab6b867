// AddGram on every backend against the reference.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

class GramTest : public BackendTest {
 protected:
  static Tensor Added(BackendRun& run, ConstMatrix x, ConstMatrix gram) {
    const Tensor device = run.OnDevice(gram);
    run.backend().AddGram(run.exec(), run.OnDevice(x), device);
    return run.OnHost(device);
  }
  Tensor Wanted(ConstMatrix x, ConstMatrix gram) {
    Tensor want = HostTensor(DType::kF32, gram.rows, gram.cols);
    reference().Upload(reference_exec(), gram, want);
    reference().AddGram(reference_exec(), x, want);
    return want;
  }

  // |x_i| . |x_j| <= |x_i|_2 |x_j|_2 (Cauchy-Schwarz); two roundings per term, for instruction
  // sets without FMA, and the addition to gram. Where F32 is multiplied as three BF16 numbers, six
  // roundings, all but one of which are of small products.
  static Bound GramBound(ConstMatrix x, ConstMatrix gram) {
    std::vector<double> norm(static_cast<size_t>(x.cols));
    for (int64_t i = 0; i < x.cols; ++i) {
      double sum = 0;
      for (int64_t t = 0; t < x.rows; ++t) sum += At(x, t, i) * At(x, t, i);
      norm[static_cast<size_t>(i)] = std::sqrt(sum);
    }
    return [norm, gram, terms = 2 * x.rows + 2](int64_t i, int64_t j, double want) {
      const double abs_dot = norm[static_cast<size_t>(i)] * norm[static_cast<size_t>(j)] +
                             std::abs(gram.Row<float>(i)[j]);
      const double eps = UnitRoundoff(DType::kF32);
      return DotBound(terms, abs_dot, want, eps, eps);
    };
  }

  Random random_{5};
};

TEST_P(GramTest, MatchesReference) {
  struct Shape {
    int64_t tokens;
    int64_t in;
  };
  // Panels have 8, 16 or 64 columns, chunks 1024 or 2048 tokens, step blocks 512 steps.
  for (const Shape s : {Shape{0, 3}, Shape{1, 1}, Shape{5, 0}, Shape{2, 63}, Shape{3, 64},
                        Shape{7, 65}, Shape{129, 17}, Shape{64, 131}, Shape{513, 9},
                        Shape{1025, 19}, Shape{2049, 23}, Shape{2300, 70}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(std::to_string(s.tokens) + " tokens, in " + std::to_string(s.in) + ", " +
                   std::string(NameOf(dtype)));
      const Tensor x = NormalMatrix(random_, dtype, s.tokens, s.in);
      const Tensor gram = NormalMatrix(random_, DType::kF32, s.in, s.in);
      const Tensor got = Added(tested(), x, gram);
      EXPECT_TRUE(Within(got, Wanted(x, gram), GramBound(x, gram)));
      for (int64_t i = 0; i < s.in; ++i) {  // below the diagonal nothing is written
        EXPECT_TRUE(SameBits(got.view().Rows(i, 1).Cols(0, i), gram.view().Rows(i, 1).Cols(0, i)));
      }
    }
  }
}

TEST_P(GramTest, ThreadsDoNotChangeBits) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor x = NormalMatrix(random_, dtype, 2051, 150);
    const Tensor gram = NormalMatrix(random_, DType::kF32, 150, 150);
    const Tensor want = Added(tested(), x, gram);
    for (const int threads : {1, 3}) {
      EXPECT_TRUE(SameBits(Added(*WithThreads(threads), x, gram), want)) << threads << " threads";
    }
  }
}

TEST_P(GramTest, StridedOperands) {
  const Tensor x = NormalMatrix(random_, DType::kF32, 40, 100);
  const Tensor gram = NormalMatrix(random_, DType::kF32, 80, 90);
  const Tensor device = OnDevice(gram);
  backend().AddGram(exec(), OnDevice(x).view().Cols(7, 71), device.view().Rows(2, 71).Cols(3, 71));
  const Tensor got = OnHost(device);
  const Tensor part = OnHost(OnDevice(x.view().Cols(7, 71)));
  const Tensor before = OnHost(OnDevice(gram.view().Rows(2, 71).Cols(3, 71)));
  EXPECT_TRUE(SameBits(got.view().Rows(2, 71).Cols(3, 71), Added(tested(), part, before)));
  EXPECT_TRUE(SameBits(got.view().Cols(74, 16), gram.view().Cols(74, 16)));
  EXPECT_TRUE(SameBits(got.view().Rows(73, 7), gram.view().Rows(73, 7)));
}

TEST_P(GramTest, NanStaysInItsRowAndColumn) {
  const Tensor x = NormalMatrix(random_, DType::kF32, 9, 70);
  Set(x, 4, 66, std::numeric_limits<double>::quiet_NaN());
  const Tensor gram = HostTensor(DType::kF32, 70, 70);
  Fill(gram, 0);
  const Tensor got = Added(tested(), x, gram);
  for (int64_t i = 0; i < 70; ++i) {
    for (int64_t j = i; j < 70; ++j) {
      ASSERT_EQ(std::isnan(got.Row<float>(i)[j]), i == 66 || j == 66) << i << ", " << j;
    }
  }
}

TEST_P(GramTest, InfinityMeetsEachColumnAsInTheReference) {
  const float infinity = std::numeric_limits<float>::infinity();
  const Tensor x = NormalMatrix(random_, DType::kF32, 9, 70);
  Set(x, 4, 66, infinity);
  Set(x, 4, 3, 0);     // whose product with it is NaN
  Set(x, 4, 5, 0.75);  // of few bits
  Set(x, 2, 30, infinity);
  Set(x, 7, 30, -1);  // its square is infinite as well
  const Tensor gram = HostTensor(DType::kF32, 70, 70);
  Fill(gram, 0);
  const Tensor got = Added(tested(), x, gram);
  const Tensor want = Wanted(x, gram);
  const auto kind = [](float v) { return std::isnan(v) ? 2 : std::isinf(v) ? 1 : 0; };
  for (int64_t i = 0; i < 70; ++i) {
    for (int64_t j = i; j < 70; ++j) {
      ASSERT_EQ(kind(got.Row<float>(i)[j]), kind(want.Row<float>(i)[j])) << i << ", " << j;
    }
  }
}

// Small columns beside large ones, and numbers with all bits of their mantissas.
TEST_P(GramTest, MagnitudesOfColumnsDoNotMix) {
  const Tensor x = NormalMatrix(random_, DType::kF32, 21, 67);
  for (int64_t t = 0; t < x.rows(); ++t) {
    for (int64_t i = 0; i < x.cols(); ++i) {
      Set(x, t, i, At(x, t, i) * std::ldexp(1.0, static_cast<int>(i % 7) * 8 - 24));
    }
  }
  const Tensor gram = HostTensor(DType::kF32, 67, 67);
  Fill(gram, 0);
  EXPECT_TRUE(Within(Added(tested(), x, gram), Wanted(x, gram), GramBound(x, gram)));
}

TEST_P(GramTest, ZeroColumnGivesZeros) {
  const Tensor x = NormalMatrix(random_, DType::kBF16, 33, 20);
  for (int64_t t = 0; t < x.rows(); ++t) Set(x, t, 7, 0);
  const Tensor gram = HostTensor(DType::kF32, 20, 20);
  Fill(gram, 0);
  const Tensor got = Added(tested(), x, gram);
  for (int64_t i = 0; i <= 7; ++i) EXPECT_EQ(got.Row<float>(i)[7], 0);
  for (int64_t j = 7; j < 20; ++j) EXPECT_EQ(got.Row<float>(7)[j], 0);
}

// x^T (y - x). The difference is rounded to BF16 where pairs are multiplied.
TEST_P(GramTest, CrossMatchesReference) {
  struct Shape {
    int64_t tokens;
    int64_t in;
  };
  for (const Shape s : {Shape{0, 3}, Shape{1, 1}, Shape{3, 64}, Shape{7, 65}, Shape{129, 17},
                        Shape{1025, 19}, Shape{2300, 70}}) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(std::to_string(s.tokens) + " tokens, in " + std::to_string(s.in) + ", " +
                   std::string(NameOf(dtype)));
      const Tensor x = NormalMatrix(random_, dtype, s.tokens, s.in);
      const Tensor y = NormalMatrix(random_, dtype, s.tokens, s.in);
      const Tensor start = NormalMatrix(random_, DType::kF32, s.in, s.in);
      const Tensor device = OnDevice(start);
      backend().AddCross(exec(), OnDevice(x), OnDevice(y), device);
      Tensor want = OnHost(OnDevice(start));
      reference().AddCross(reference_exec(), x, y, want);
      const double rounding =
          UnitRoundoff(DType::kF32) + (dtype == DType::kBF16 ? UnitRoundoff(DType::kBF16) : 0);
      const Bound bound = [&](int64_t i, int64_t j, double) {
        double products = 0;
        for (int64_t t = 0; t < s.tokens; ++t) {
          products += std::abs(At(x, t, i) * (At(y, t, j) - At(x, t, j)));
        }
        const double before = std::abs(At(start, i, j));
        return rounding * products + DotBound(2 * s.tokens + 2, products + before,
                                              products + before, UnitRoundoff(DType::kF32),
                                              UnitRoundoff(DType::kF32));
      };
      EXPECT_TRUE(Within(OnHost(device), want, bound));
    }
  }
}

TEST_P(GramTest, CrossOfEqualInputsIsZeroAndThreadsDoNotChangeBits) {
  const Tensor x = NormalMatrix(random_, DType::kBF16, 300, 90);
  const Tensor y = NormalMatrix(random_, DType::kBF16, 300, 90);
  const auto crossed = [&](BackendRun& run, ConstMatrix other) {
    const Tensor cross = run.Empty(DType::kF32, 90, 90);
    run.backend().Zero(run.exec(), cross);
    run.backend().AddCross(run.exec(), run.OnDevice(x), run.OnDevice(other), cross);
    return run.OnHost(cross);
  };
  const Tensor zero = HostTensor(DType::kF32, 90, 90);
  Fill(zero, 0);
  EXPECT_TRUE(Within(crossed(tested(), x), zero, Exactly()));
  EXPECT_TRUE(SameBits(crossed(tested(), y), crossed(*WithThreads(1), y)));
}

QUANTMILL_ALL_BACKENDS(GramTest);

}  // namespace
}  // namespace quantmill::test
