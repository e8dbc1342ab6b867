#include "quant/solve/rtn.h"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

class RtnTest : public BackendTest {};
QUANTMILL_ALL_BACKENDS(RtnTest);

TEST_P(RtnTest, WorkedExample) {
  const std::vector<float> weight = {-1, 0.5f, 0.25f, 0.75f};
  const QuantScheme scheme{.group_size = 4};
  const SolveResult got =
      SolveRtn(backend(), exec(), OnDevice(ViewOf(weight.data(), 1, 4)), scheme);
  EXPECT_EQ(got.linear.codes, (std::vector<int8_t>{-8, 4, 2, 6}));
  EXPECT_EQ(got.linear.scales, (std::vector<float>{ToFloat(F16{0x3044})}));
  EXPECT_TRUE(got.linear.zero_points.empty());
  EXPECT_EQ(got.linear.scheme, scheme);
  EXPECT_TRUE(got.events.empty());
  EXPECT_EQ(got.damp, 0);
  const double s = got.linear.scales[0];
  const double error = std::pow(8 * s - 1, 2) + std::pow(4 * s - 0.5, 2) +
                       std::pow(2 * s - 0.25, 2) + std::pow(6 * s - 0.75, 2);
  EXPECT_NEAR(got.relative_error, error / 1.875, 1e-7);
}

TEST_P(RtnTest, AwkwardShapes) {
  Random random(1);
  for (const int64_t out : {0, 1, 5}) {
    for (const int64_t in : {0, 1, 63, 64, 65}) {
      const QuantScheme scheme{.symmetric = false, .group_size = 64};
      const Tensor weight = OnDevice(NormalMatrix(random, DType::kF32, out, in));
      const SolveResult got = SolveRtn(backend(), exec(), weight, scheme);
      CheckConsistent(got.linear);
      EXPECT_GE(got.relative_error, 0);
      EXPECT_LT(got.relative_error, 0.05);
    }
  }
}

TEST_P(RtnTest, ZeroWeightHasNoError) {
  const std::vector<float> zeros(8);
  const SolveResult got =
      SolveRtn(backend(), exec(), OnDevice(ViewOf(zeros.data(), 2, 4)), {.group_size = 4});
  EXPECT_EQ(got.relative_error, 0);
  EXPECT_EQ(got.linear.scales, (std::vector<float>{1, 1}));
}

// For normal weights in groups of 128 the absmax lies near 2.7 deviations, so the step is about
// 5.4 / (2^b - 1) deviations, and the error a twelfth of its square: 2-sided limits around that.
TEST_P(RtnTest, QualityIsWhatTheStepSays) {
  Random random(2);
  const Tensor weight = NormalMatrix(random, DType::kF32, 64, 1024);
  for (const int bits : {3, 4, 6, 8}) {
    for (const bool symmetric : {true, false}) {
      const SolveResult got = SolveRtn(backend(), exec(), OnDevice(weight),
                                       {.bits = bits, .symmetric = symmetric, .group_size = 128});
      const double step = 5.4 / ((1 << bits) - 1);
      EXPECT_GT(got.relative_error, 0.7 * step * step / 12) << bits;
      EXPECT_LT(got.relative_error, 1.4 * step * step / 12) << bits;
    }
  }
}

TEST_P(RtnTest, ScaleThatOverflowsItsTypeIsRefused) {
  const std::vector<float> weight = {1e6f, 1};
  const Tensor device = OnDevice(ViewOf(weight.data(), 1, 2));
  EXPECT_THROW(SolveRtn(backend(), exec(), device, {.group_size = 2}), Error);
  EXPECT_NO_THROW(
      SolveRtn(backend(), exec(), device, {.group_size = 2, .scale_dtype = DType::kBF16}));
}

}  // namespace
}  // namespace quantmill::test
