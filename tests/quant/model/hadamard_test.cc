#include "quant/model/hadamard.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/random.h"

namespace quantmill {
namespace {

// R itself: row i is the unit vector i, rotated.
std::vector<double> MatrixOf(const Hadamard& hadamard) {
  const int64_t n = hadamard.size();
  std::vector<double> matrix(static_cast<size_t>(n * n), 0.0);
  std::vector<double> scratch;
  for (int64_t i = 0; i < n; ++i) {
    matrix[static_cast<size_t>(i * n + i)] = 1;
    hadamard.Apply(matrix.data() + i * n, 1, scratch);
  }
  return matrix;
}

// Orders of both of Paley's kinds (12, 20, 24, 28, 36, 44, 52 = 2 * (25 + 1) is none), and
// products.
TEST(Hadamard, IsOrthogonalWithEntriesOfOneSize) {
  for (const int64_t n :
       {1, 2, 8, 12, 20, 24, 28, 36, 40, 44, 60, 76, 80, 96, 108, 140, 144, 576}) {
    const std::optional<Hadamard> hadamard = Hadamard::OfSize(n, 7);
    ASSERT_TRUE(hadamard) << n;
    ASSERT_EQ(hadamard->size(), n);
    const std::vector<double> r = MatrixOf(*hadamard);
    for (const double entry : r) {
      ASSERT_NEAR(std::abs(entry), 1 / std::sqrt(static_cast<double>(n)), 1e-14) << n;
    }
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j <= i; ++j) {
        double dot = 0;
        for (int64_t k = 0; k < n; ++k) {
          dot += r[static_cast<size_t>(i * n + k)] * r[static_cast<size_t>(j * n + k)];
        }
        ASSERT_NEAR(dot, i == j ? 1 : 0, 1e-12) << n << ": rows " << i << ", " << j;
      }
    }
  }
}

TEST(Hadamard, SizesWithoutOneAreSaid) {
  for (const int64_t n : {0, 3, 6, 10, 14, 18, 22, 30, 33, 50, 188, 1021 * 4}) {
    EXPECT_FALSE(Hadamard::OfSize(n, 7)) << n;
  }
}

TEST(Hadamard, HiddenSizesOfModelsHaveOne) {
  EXPECT_EQ(Hadamard::OfSize(576, 7)->factors(), "12 x 12 x 2 x 2");
  for (const int64_t n : {896, 960, 1536, 2048, 2304, 2560, 3072, 3584, 4096, 5120, 6144, 6656,
                          7168, 8192, 12288, 16384}) {
    EXPECT_TRUE(Hadamard::OfSize(n, 7)) << n;
  }
}

// By hand: (1, 2, 3, 4) against the 4 x 4 Hadamard matrix gives (10, -2, -4, 0) / 2 with signs
// of 1.
TEST(Hadamard, AppliesSignsBeforeTheMatrix) {
  const std::optional<Hadamard> hadamard = Hadamard::OfSize(4, 7);
  const std::vector<double> r = MatrixOf(*hadamard);
  // Row 0 of H is all ones, so the first column of R holds the signs.
  std::vector<double> x = {1, 2, 3, 4};
  for (size_t i = 0; i < 4; ++i) x[i] *= r[i * 4] > 0 ? 1 : -1;
  std::vector<double> scratch;
  hadamard->Apply(x.data(), 1, scratch);
  EXPECT_EQ(x, (std::vector<double>{5, -1, -2, 0}));
}

TEST(Hadamard, LanesAreVectorsOfTheirOwn) {
  test::Random random(5);
  const std::optional<Hadamard> hadamard = Hadamard::OfSize(48, 7);
  constexpr int64_t kLanes = 3;
  std::vector<double> together(48 * kLanes);
  for (double& x : together) x = random.Uniform(-1, 1);
  std::vector<double> scratch;
  for (int64_t l = 0; l < kLanes; ++l) {
    std::vector<double> alone;
    for (size_t i = 0; i < 48; ++i) alone.push_back(together[i * kLanes + static_cast<size_t>(l)]);
    std::vector<double> all = together;
    hadamard->Apply(alone.data(), 1, scratch);
    hadamard->Apply(all.data(), kLanes, scratch);
    for (size_t i = 0; i < 48; ++i) {
      EXPECT_EQ(all[i * kLanes + static_cast<size_t>(l)], alone[i]) << l << ", " << i;
    }
  }
}

TEST(Hadamard, SeedsDiffer) {
  std::vector<double> scratch;
  std::vector<double> a(64, 1.0);
  std::vector<double> b(64, 1.0);
  Hadamard::OfSize(64, 1)->Apply(a.data(), 1, scratch);
  Hadamard::OfSize(64, 2)->Apply(b.data(), 1, scratch);
  EXPECT_NE(a, b);
}

}  // namespace
}  // namespace quantmill
