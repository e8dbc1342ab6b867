#include "quant/transform/smoothquant.h"

#include <gtest/gtest.h>

#include <limits>

#include "quant/transform/static_inputs.h"
#include "tests/quant/transform/problems.h"

namespace quantmill::test {
namespace {

FoldProblem TwoChannels() {
  FoldProblem problem;
  problem.scheme = W8A8();
  problem.weight = HostTensor(DType::kF32, 2, 2);
  problem.weight.Row<float>(0)[0] = 1;
  problem.weight.Row<float>(0)[1] = -4;
  problem.weight.Row<float>(1)[0] = 0.5f;
  problem.weight.Row<float>(1)[1] = 2;
  problem.scale_of = {0, 1};
  problem.scales = 2;
  problem.absmax = {16, 1};
  return problem;
}

// x = (16, 1), w = (1, 4): x^a / w^(1-a), over the geometric middle.
TEST(SmoothQuantTest, ScalesOfAHandWorkedCase) {
  const FoldProblem problem = TwoChannels();
  EXPECT_EQ(SmoothingScales(problem, 1), (std::vector<float>{4, 0.25f}));
  EXPECT_EQ(SmoothingScales(problem, 0), (std::vector<float>{2, 0.5f}));
  // (4 / 1, 1 / 2) over sqrt(2).
  const std::vector<float> half = SmoothingScales(problem, 0.5);
  EXPECT_NEAR(half[0], 2.8284, 2.9 * 0x1p-8);
  EXPECT_NEAR(half[1], 0.35355, 0.36 * 0x1p-8);
  EXPECT_EQ(SmoothingCandidates(problem).size(), 21u);
}

TEST(SmoothQuantTest, ColumnsThatShareAScaleCountTogether) {
  FoldProblem problem = TwoChannels();
  problem.scale_of = {0, 0};
  problem.scales = 1;
  EXPECT_EQ(SmoothingScales(problem, 0.7), (std::vector<float>{1}));
}

TEST(SmoothQuantTest, OutliersAreCountedAgainstTheMedian) {
  std::vector<float> absmax(99, 1.0f);
  EXPECT_EQ(FindOutliers(absmax).count, 0);
  absmax[7] = 21;
  absmax[50] = 300;
  absmax[51] = 19;
  const OutlierChannels outliers = FindOutliers(absmax);
  EXPECT_EQ(outliers.count, 2);
  EXPECT_EQ(outliers.largest, 50);
  EXPECT_DOUBLE_EQ(outliers.ratio, 300);
  EXPECT_EQ(FindOutliers({}).count, 0);
  EXPECT_EQ(FindOutliers({0, 0, 0, 5}).count, 0);  // no median to compare with
}

// ---- static inputs ----

QuantizedLinear WithInputs(InputScheme::Type type, bool symmetric) {
  QuantizedLinear linear;
  linear.scheme = W8A8();
  linear.scheme.input = {type, false, symmetric, InputScheme::kPerToken};
  return linear;
}

TEST(StaticInputsTest, RangeIsThatOfTheDividedInputs) {
  const ValueRange range = RangeOfInputs({-4, 1, -1}, {2, 3, 8}, {2, 1, 4});
  EXPECT_EQ(range.lo, -2);
  EXPECT_EQ(range.hi, 3);
  const ValueRange positive = RangeOfInputs({1, 2}, {3, 4}, {});
  EXPECT_EQ(positive.lo, 0);
  EXPECT_EQ(positive.hi, 4);
}

TEST(StaticInputsTest, ScalesCoverTheRange) {
  QuantizedLinear linear = WithInputs(InputScheme::Type::kInt8, true);
  SetStaticInput({-255, 100}, linear);
  EXPECT_EQ(linear.input_scale, 2);
  EXPECT_EQ(linear.input_zero_point, 0);
  linear = WithInputs(InputScheme::Type::kFp8, true);
  SetStaticInput({-1, 896}, linear);
  EXPECT_EQ(linear.input_scale, 2);
  linear = WithInputs(InputScheme::Type::kInt8, false);
  SetStaticInput({-10, 500}, linear);  // scale 2: -10 is code -128, 500 is 127
  EXPECT_EQ(linear.input_scale, 2);
  EXPECT_EQ(linear.input_zero_point, -123);
  SetStaticInput({-510, 0}, linear);
  EXPECT_EQ(linear.input_zero_point, 127);
}

TEST(StaticInputsTest, TheGlobalScaleGivesTheLargestGroupTheLargestScale) {
  QuantizedLinear linear;
  linear.scheme.input = {InputScheme::Type::kFp4, true, true, 16, DType::kF8E4M3};
  SetStaticInput({-448 * 3, 1}, linear);
  EXPECT_EQ(linear.input_scale, 2);
  SetStaticInput({0, 0}, linear);
  EXPECT_EQ(linear.input_scale, 1);
}

TEST(StaticInputsTest, InputsThatAreAlwaysZero) {
  for (const bool symmetric : {true, false}) {
    QuantizedLinear linear = WithInputs(InputScheme::Type::kInt8, symmetric);
    SetStaticInput({0, 0}, linear);
    EXPECT_EQ(linear.input_scale, 1);
    EXPECT_EQ(linear.input_zero_point, 0);
  }
}

TEST(StaticInputsTest, ScalesOfAnFp8Cache) {
  EXPECT_EQ(Fp8CacheScales({448, 896, 0}, true), (std::vector<float>{1, 2, 1}));
  EXPECT_EQ(Fp8CacheScales({448, 896, 0}, false), (std::vector<float>{2}));
  EXPECT_EQ(Fp8CacheScales({0, 0}, false), (std::vector<float>{1}));
  EXPECT_THROW(Fp8CacheScales({1, std::numeric_limits<float>::quiet_NaN()}, true), Error);
  EXPECT_THROW(Fp8CacheScales({std::numeric_limits<float>::infinity()}, false), Error);
}

}  // namespace
}  // namespace quantmill::test
