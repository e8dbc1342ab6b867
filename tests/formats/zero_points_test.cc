#include "formats/zero_points.h"

#include "tests/formats/artifact_test_util.h"

namespace quantmill::test {
namespace {

std::vector<float> Values(const QuantizedLinear& linear) {
  std::vector<float> values(static_cast<size_t>(linear.out * linear.in));
  for (int64_t row = 0; row < linear.out; ++row) {
    DequantizeRow(linear, row, values.data() + row * linear.in);
  }
  return values;
}

// By hand: codes -8 and 7 of scale -0.5 are 4 and -3.5; 7 and -8 of zero point -1, scale 0.5, too.
TEST(ZeroPoints, NegativeScalesAreMirrored) {
  QuantizedLinear linear;
  linear.scheme = {4, true, 2, DType::kF16};
  linear.out = 1;
  linear.in = 4;
  linear.codes = {-8, 7, -8, 7};
  linear.scales = {-0.5f, 0.5f};
  ToAsymmetric(linear);
  EXPECT_FALSE(linear.scheme.symmetric);
  EXPECT_EQ(linear.codes, (std::vector<int8_t>{7, -8, -8, 7}));
  EXPECT_EQ(linear.scales, (std::vector<float>{0.5f, 0.5f}));
  EXPECT_EQ(linear.zero_points, (std::vector<int8_t>{-1, 0}));
  EXPECT_EQ(Values(linear), (std::vector<float>{4, -3.5f, -4, 3.5f}));
}

TEST(ZeroPoints, BothWaysKeepEveryValue) {
  Random random(1);
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t group : {QuantScheme::kPerChannel, int64_t{16}, int64_t{24}}) {
      const QuantizedLinear original =
          RandomLinear({bits, true, group, DType::kF16}, 7, 48, random);
      QuantizedLinear linear = original;
      ToAsymmetric(linear);
      EXPECT_EQ(Values(linear), Values(original));
      EXPECT_TRUE(IsSymmetricInDisguise(linear));
      ToSymmetric(linear);
      ExpectSameLinear(linear, original);
    }
  }
}

TEST(ZeroPoints, OtherZeroPointsAreNoDisguise) {
  Random random(2);
  QuantizedLinear linear = RandomLinear({4, true, 16, DType::kF16}, 7, 48, random);
  EXPECT_FALSE(IsSymmetricInDisguise(linear));
  ToAsymmetric(linear);
  linear.zero_points[5] = 1;
  EXPECT_FALSE(IsSymmetricInDisguise(linear));
}

}  // namespace
}  // namespace quantmill::test
