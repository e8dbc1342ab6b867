#include "quant/verify/weight_error.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "quant/verify/verify_artifact.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

QuantizedLinear RandomLinear(Random& random, int64_t out, int64_t in, const QuantScheme& scheme) {
  QuantizedLinear linear{scheme, out, in, {}, {}, {}};
  for (int64_t i = 0; i < out * in; ++i) {
    linear.codes.push_back(static_cast<int8_t>(random.Int(scheme.min_code(), scheme.max_code())));
  }
  for (int64_t i = 0; i < out * scheme.GroupsFor(in); ++i) {
    linear.scales.push_back(
        RoundTo(scheme.scale_dtype, static_cast<float>(random.Uniform(0.001, 0.1))));
    if (!scheme.symmetric) {
      linear.zero_points.push_back(
          static_cast<int8_t>(random.Int(scheme.min_code(), scheme.max_code())));
    }
  }
  return linear;
}

double PlainError(const QuantizedLinear& linear, ConstMatrix dense) {
  Tensor weight = HostTensor(DType::kF32, linear.out, linear.in);
  Dequantize(linear, weight);
  double difference = 0;
  double squares = 0;
  for (int64_t o = 0; o < linear.out; ++o) {
    for (int64_t i = 0; i < linear.in; ++i) {
      const double w = At(dense, o, i);
      const double d = weight.Row<float>(o)[i] - w;
      difference += d * d;
      squares += w * w;
    }
  }
  return difference / squares;
}

class WeightErrorTest : public testing::Test {
 protected:
  ThreadPool pool_{3};
};

TEST_F(WeightErrorTest, AgreesWithPlainLoops) {
  Random random(3);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t in : {int64_t{1}, int64_t{7}, int64_t{8}, int64_t{64}, int64_t{129}}) {
      for (const bool symmetric : {true, false}) {
        const QuantScheme scheme{.symmetric = symmetric, .group_size = in == 64 ? 16 : -1};
        const QuantizedLinear linear = RandomLinear(random, 5, in, scheme);
        const Tensor dense = NormalMatrix(random, dtype, 5, in, 0.1);
        const double want = PlainError(linear, dense);
        // Sums of positive terms: relative error at most (terms + 1) roundings, twice for the
        // ratio.
        const double bound = 2 * static_cast<double>(5 * in + 2) * 0x1p-53 * want;
        EXPECT_NEAR(WeightError(linear, dense, pool_), want, bound) << NameOf(dtype) << " " << in;
      }
    }
  }
}

TEST_F(WeightErrorTest, RowsMayBeStridedAndSharedOut) {
  Random random(4);
  const QuantizedLinear linear = RandomLinear(random, 130, 24, {.group_size = 8});
  const Tensor wide = NormalMatrix(random, DType::kF16, 130, 40, 0.1);
  const ConstMatrix dense = ConstMatrix(wide).Cols(16, 24);
  std::vector<RowSquares> rows(130);
  SquaresOfRows(linear, dense, 9, std::span(rows).subspan(9));
  SquaresOfRows(linear, dense, 0, std::span(rows).first(9));
  EXPECT_EQ(RelativeError(rows), WeightError(linear, dense, pool_));
}

TEST_F(WeightErrorTest, ExactWeightsHaveNoError) {
  Random random(5);
  const QuantizedLinear linear = RandomLinear(random, 4, 16, {.group_size = 8});
  Tensor dense = HostTensor(DType::kF32, 4, 16);
  Dequantize(linear, dense);
  EXPECT_EQ(WeightError(linear, dense, pool_), 0);
}

TEST_F(WeightErrorTest, ZeroRowsAndNothing) {
  Random random(6);
  QuantizedLinear linear = RandomLinear(random, 2, 8, {.group_size = 8});
  Tensor zero = HostTensor(DType::kF32, 2, 8);
  Fill(zero, 0);
  EXPECT_EQ(WeightError(linear, zero, pool_), std::numeric_limits<double>::infinity());
  std::fill(linear.codes.begin(), linear.codes.end(), int8_t{0});
  EXPECT_EQ(WeightError(linear, zero, pool_), 0);
  Fill(zero, 1);
  EXPECT_EQ(WeightError(linear, zero, pool_), 1);  // storing zeros
  zero.Row<float>(0)[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(WeightError(linear, zero, pool_)));
}

}  // namespace
}  // namespace quantmill::test
