// PermuteGram and FactorGram.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

class FactorTest : public BackendTest {};
QUANTMILL_ALL_BACKENDS(FactorTest);

constexpr float kNoise = 1e30f;

std::vector<int32_t> Shuffled(Random& random, int64_t n) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[static_cast<size_t>(random.Int(0, static_cast<int64_t>(i) - 1))]);
  }
  return order;
}

// A copy in host memory.
Tensor CopyOf(ConstMatrix m) {
  Tensor copy = HostTensor(m.dtype, m.rows, m.cols);
  for (int64_t r = 0; r < m.rows; ++r) std::copy_n(m.Row<float>(r), m.cols, copy.Row<float>(r));
  return copy;
}

TEST_P(FactorTest, PermutesAndCompletesTheSquare) {
  Random random(1);
  for (const int64_t n : {0, 1, 2, 31, 127, 128, 129, 256, 300, 515}) {
    for (const bool identity : {false, true}) {
      Tensor gram = NormalMatrix(random, DType::kF32, n, n);
      for (int64_t i = 0; i < n; ++i) std::fill_n(gram.Row<float>(i), i, kNoise);
      std::vector<int32_t> order = Shuffled(random, n);
      if (identity) std::iota(order.begin(), order.end(), 0);
      const Tensor got = OnDevice(gram);
      backend().PermuteGram(exec(), order, got);
      reference().PermuteGram(reference_exec(), order, gram);
      EXPECT_TRUE(SameBits(OnHost(got), gram)) << "n " << n;
    }
  }
}

// X^T X / tokens of correlated activations with some loud inputs, in the lower triangle; noise
// above.
struct Statistics {
  Tensor gram, diagonal;
  double mean = 0;
};
Statistics MakeStatistics(Random& random, int64_t n, int64_t tokens) {
  std::vector<std::vector<double>> x(static_cast<size_t>(tokens));
  for (auto& row : x) {
    double shared = random.Normal();
    for (int64_t i = 0; i < n; ++i) {
      shared = 0.8 * shared + 0.6 * random.Normal();
      row.push_back(shared * (i % 17 == 3 ? 10 : 1));
    }
  }
  Statistics s{HostTensor(DType::kF32, n, n), HostTensor(DType::kF32, 1, n), 0};
  Fill(s.gram, kNoise);
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = 0;
      for (const auto& row : x) sum += row[i] * row[j];
      sum /= static_cast<double>(tokens);
      if (j < i) s.gram.Row<float>(static_cast<int64_t>(i))[j] = static_cast<float>(sum);
      if (j == i) s.diagonal.Row<float>(0)[i] = static_cast<float>(sum);
      if (j == i) s.mean += sum / static_cast<double>(n);
    }
  }
  return s;
}

using Square = std::vector<std::vector<double>>;

Square Zeros(int64_t n) {
  return Square(static_cast<size_t>(n), std::vector<double>(static_cast<size_t>(n)));
}

// U of H + damp I = U U^T, in double.
Square FactorInDouble(const Statistics& s, float damp) {
  const int64_t n = s.gram.rows();
  Square u = Zeros(n);
  for (size_t j = u.size(); j-- > 0;) {
    for (size_t i = j + 1; i-- > 0;) {
      double sum = i == j ? static_cast<double>(s.diagonal.Row<float>(0)[j]) + damp
                          : static_cast<double>(s.gram.Row<float>(static_cast<int64_t>(j))[i]);
      for (size_t k = j + 1; k < u.size(); ++k) sum -= u[i][k] * u[j][k];
      u[i][j] = i == j ? std::sqrt(sum) : sum / u[j][j];
    }
  }
  return u;
}

// U R = I within the first-order bound of an F32 computation:
//   the computed factor U' has U' U'^T = H + E, |E_ij| <= (n + 1) eps s_i s_j, s_i^2 = H_ii + damp,
//   hence |U' - U| <= |U| G, G = |R| |E| |R|^T; and R solves U' R = I with |U' R - I| <=
//   n eps |U| |R|.
testing::AssertionResult InvertsFactor(const Square& u, ConstMatrix r, const Statistics& s,
                                       float damp) {
  const size_t n = u.size();
  const double eps = static_cast<double>(n + 1) * 0x1p-24;
  const auto at = [&r](size_t i, size_t j) {
    return j < i ? 0.0 : static_cast<double>(r.Row<float>(static_cast<int64_t>(i))[j]);
  };
  std::vector<double> g(n), ug(n), gr(n);  // |R| s, |U| |R| s, s^T |R|^T |R|
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      g[i] += std::abs(at(i, j)) * std::sqrt(s.diagonal.Row<float>(0)[j] + damp);
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) ug[i] += std::abs(u[i][j]) * g[j];
    for (size_t k = 0; k <= i; ++k) gr[i] += g[k] * std::abs(at(k, i));
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      double product = 0;
      double magnitude = 0;
      for (size_t k = i; k <= j; ++k) {
        product += u[i][k] * at(k, j);
        magnitude += std::abs(u[i][k] * at(k, j));
      }
      const double error = std::abs(product - (i == j ? 1 : 0));
      const double bound = eps * (magnitude + ug[i] * gr[j]);
      if (!(error <= bound)) {
        return testing::AssertionFailure()
               << "U R at [" << i << ", " << j << "]: " << product << ", bound " << bound;
      }
    }
  }
  return testing::AssertionSuccess();
}

TEST_P(FactorTest, InvertsTheFactorOfTheDampedGram) {
  Random random(2);
  for (const int64_t n : {0, 1, 7, 31, 127, 128, 129, 256, 300}) {
    const Statistics s = MakeStatistics(random, n, 2 * n + 3);
    const auto damp = static_cast<float>(0.01 * s.mean);
    for (const Precision precision : {Precision::kF32, Precision::kF64}) {
      const Tensor gram = OnDevice(s.gram);
      const FactorResult result =
          backend().FactorGram(exec(), OnDevice(s.diagonal), damp, precision, gram);
      ASSERT_TRUE(result.ok) << "n " << n << " failed at " << result.failed_column;
      EXPECT_EQ(result.failed_column, -1);
      const Tensor r = OnHost(gram);
      EXPECT_TRUE(InvertsFactor(FactorInDouble(s, damp), r, s, damp)) << "n " << n;
      for (int64_t i = 0; i < n; ++i) {  // H stays below the diagonal
        ASSERT_TRUE(SameBits(r.view().Rows(i, 1).Cols(0, i), s.gram.view().Rows(i, 1).Cols(0, i)));
      }
    }
  }
}

TEST_P(FactorTest, ReferenceFactorsToo) {
  Random random(3);
  const Statistics s = MakeStatistics(random, 60, 100);
  const Tensor gram = CopyOf(s.gram);
  ASSERT_TRUE(reference().FactorGram(reference_exec(), s.diagonal, 0.1f, Precision::kF32, gram).ok);
  EXPECT_TRUE(InvertsFactor(FactorInDouble(s, 0.1f), gram, s, 0.1f));
}

// Fewer tokens than inputs: H is singular, and damping makes it factor.
TEST_P(FactorTest, SingularGramFactorsWithDamping) {
  Random random(4);
  const Statistics s = MakeStatistics(random, 200, 20);
  const auto damp = static_cast<float>(0.01 * s.mean);
  const Tensor gram = OnDevice(s.gram);
  ASSERT_TRUE(backend().FactorGram(exec(), OnDevice(s.diagonal), damp, Precision::kF32, gram).ok);
  EXPECT_TRUE(InvertsFactor(FactorInDouble(s, damp), OnHost(gram), s, damp));
}

// H = [[1 + e, 1], [1, 1 + e]] of e = 2^-26: 1 in F32, so that the second pivot vanishes.
TEST_P(FactorTest, DoublePrecisionSeesMoreDigits) {
  const Tensor gram = HostTensor(DType::kF32, 2, 2);
  Fill(gram, 1);
  const Tensor diagonal = HostTensor(DType::kF32, 1, 2);
  Fill(diagonal, 1);
  const float damp = 0x1p-26f;
  EXPECT_FALSE(
      backend().FactorGram(exec(), OnDevice(diagonal), damp, Precision::kF32, OnDevice(gram)).ok);
  const Tensor device = OnDevice(gram);
  ASSERT_TRUE(backend().FactorGram(exec(), OnDevice(diagonal), damp, Precision::kF64, device).ok);
  // R R^T-inverse by hand: U = [[sqrt(2e), 1], [0, 1]] to first order, R = U^-1.
  EXPECT_NEAR(OnHost(device).Row<float>(0)[0], std::sqrt(0x1p25), 1);
}

TEST_P(FactorTest, NamesTheFirstBadPivotInSolveOrder) {
  for (const int64_t n : {1, 40, 300}) {
    for (const int64_t bad : {int64_t{0}, n / 2, n - 1}) {
      for (const float value : {-1.0f, 0.0f, std::numeric_limits<float>::quiet_NaN(),
                                std::numeric_limits<float>::infinity()}) {
        Tensor gram = HostTensor(DType::kF32, n, n);
        Fill(gram, 0);
        Tensor diagonal = HostTensor(DType::kF32, 1, n);
        Fill(diagonal, 1);
        diagonal.Row<float>(0)[bad] = value;
        diagonal.Row<float>(0)[0] = value;  // met later than `bad`, as columns go downwards
        const FactorResult result =
            backend().FactorGram(exec(), OnDevice(diagonal), 0, Precision::kF32, OnDevice(gram));
        EXPECT_FALSE(result.ok);
        EXPECT_EQ(result.failed_column, bad);
        EXPECT_EQ(reference()
                      .FactorGram(reference_exec(), diagonal, 0, Precision::kF32, gram)
                      .failed_column,
                  bad);
      }
    }
  }
}

TEST_P(FactorTest, RepeatAfterFailureEqualsAFreshCall) {
  Random random(5);
  const int64_t n = 300;
  const Statistics s = MakeStatistics(random, n, 30);
  const Tensor diagonal = OnDevice(s.diagonal);
  const Tensor retried = OnDevice(s.gram);
  const FactorResult failed = backend().FactorGram(
      exec(), diagonal, static_cast<float>(-0.5 * s.mean), Precision::kF32, retried);
  ASSERT_FALSE(failed.ok);
  const auto damp = static_cast<float>(0.05 * s.mean);
  ASSERT_TRUE(backend().FactorGram(exec(), diagonal, damp, Precision::kF32, retried).ok);
  const Tensor fresh = OnDevice(s.gram);
  ASSERT_TRUE(backend().FactorGram(exec(), diagonal, damp, Precision::kF32, fresh).ok);
  EXPECT_TRUE(SameBits(OnHost(retried), OnHost(fresh)));
  ASSERT_TRUE(backend()
                  .FactorGram(exec(), diagonal, damp, Precision::kF32, retried)
                  .ok);  // and after success
  EXPECT_TRUE(SameBits(OnHost(retried), OnHost(fresh)));
}

TEST_P(FactorTest, SameBitsForAnyNumberOfThreads) {
  Random random(6);
  const int64_t n = 515;
  const Statistics s = MakeStatistics(random, n, 600);
  const std::vector<int32_t> order = Shuffled(random, n);
  std::vector<Tensor> factors;
  std::vector<Tensor> permuted;
  for (const int threads : {1, 2, 3}) {
    const auto run = WithThreads(threads);
    const Tensor gram = run->OnDevice(s.gram);
    ASSERT_TRUE(
        run->backend()
            .FactorGram(run->exec(), run->OnDevice(s.diagonal), 0.05f, Precision::kF32, gram)
            .ok);
    factors.push_back(run->OnHost(gram));
    run->backend().PermuteGram(run->exec(), order, gram);
    permuted.push_back(run->OnHost(gram));
    EXPECT_TRUE(SameBits(factors.back(), factors.front())) << threads;
    EXPECT_TRUE(SameBits(permuted.back(), permuted.front())) << threads;
  }
}

}  // namespace
}  // namespace quantmill::test
