// Inputs whose groups have rounded scales (NVFP4, MXFP4, MXFP8), on every backend: the rounding bit
// for bit, read through weights that are the identity; then products as of any weight.
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

using Input = InputScheme;

constexpr Input kNvfp4{.type = Input::Type::kFp4, .group_size = 16, .scale_dtype = DType::kF8E4M3};
constexpr Input kMxfp4{.type = Input::Type::kFp4, .group_size = 32, .scale_dtype = DType::kF8E8M0};
constexpr Input kMxfp8{.type = Input::Type::kFp8, .group_size = 32, .scale_dtype = DType::kF8E8M0};

// Weights that pick each input.
QuantizedLinear Identity(const Input& input, int64_t in, float input_scale) {
  QuantizedLinear q;
  q.scheme.code_type = CodeType::kFp4;
  q.scheme.group_size = QuantScheme::kPerChannel;
  q.scheme.scale_dtype = DType::kF32;
  q.scheme.input = input;
  q.out = in;
  q.in = in;
  q.codes.assign(static_cast<size_t>(in * in), 0);
  for (int64_t i = 0; i < in; ++i) q.codes[static_cast<size_t>(i * in + i)] = 2;  // 1.0
  q.scales.assign(static_cast<size_t>(in), 1);
  q.input_scale = input_scale;
  return q;
}

class BlockScaledTest : public BackendTest {
 protected:
  Tensor Product(BackendRun& run, ConstMatrix x, const PackedLinear& w) {
    const Tensor device_x = run.OnDevice(x);
    const Tensor y = run.OnDevice(HostTensor(DType::kF32, x.rows, w.out()));
    run.backend().MatMul(run.exec(), device_x, w, {}, MatMulMode::kStore, y);
    return run.OnHost(y);
  }
  std::vector<float> Rounded(const std::vector<float>& x, const Input& input,
                             float input_scale = 0) {
    const auto in = static_cast<int64_t>(x.size());
    const auto w = backend().PackQuantized(exec(), Identity(input, in, input_scale), Compute::kF32);
    const Tensor y = Product(tested(), ViewOf(x.data(), 1, in), *w);
    return {y.Row<float>(0), y.Row<float>(0) + in};
  }

  Random random_{31};
};

// absmax 6 under a global scale of 448: the group's scale is 448, which stands for 1.
TEST_P(BlockScaledTest, Nvfp4ByHand) {
  std::vector<float> x(16, 0.0f);
  const std::vector<float> values = {6,    -6,   0.25f, 0.75f, -1.25f, 1.75f,
                                     2.5f, 3.5f, 5,     5.01f, -0.26f};
  std::copy(values.begin(), values.end(), x.begin());
  const std::vector<float> want = {6, -6, 0, 1, -1, 2, 2, 4, 4, 6, -0.5f, 0, 0, 0, 0, 0};
  EXPECT_EQ(Rounded(x, kNvfp4, 448), want);
}

// 3 / 6 * 1 = 0.5 is an E4M3 number, 0.52 is not: its neighbours are 0.5 and 0.5625.
TEST_P(BlockScaledTest, ScalesOfNvfp4AreRounded) {
  std::vector<float> x(32, 0.0f);
  x[0] = 3;
  x[1] = 1.4f;
  x[16] = 3.12f;
  x[17] = 1.4f;
  const std::vector<float> got = Rounded(x, kNvfp4, 1);
  EXPECT_EQ(got[0], 3);
  EXPECT_EQ(got[1], 1.5f);
  EXPECT_EQ(got[16], 3);
  EXPECT_EQ(got[17], 1.5f);
}

// The scale of a group far below the global one is rounded to 0; one above is clamped to 448.
TEST_P(BlockScaledTest, ScalesOfNvfp4AtTheEnds) {
  std::vector<float> x(32, 0.0f);
  x[0] = 1e-5f;
  x[16] = 1e6f;
  x[17] = 3;
  const std::vector<float> got = Rounded(x, kNvfp4, 1);
  EXPECT_EQ(got[0], 0);
  EXPECT_EQ(got[16], 6 * 448);
  EXPECT_EQ(got[17], 0);
}

TEST_P(BlockScaledTest, Mxfp4ByHand) {
  std::vector<float> x(32, 0.0f);
  x[0] = 6.9f;  // below 1.75 * 4: scale 1, clamped
  x[1] = 2.5f;
  EXPECT_EQ(Rounded(x, kMxfp4)[0], 6);
  EXPECT_EQ(Rounded(x, kMxfp4)[1], 2);
  x[0] = 7;  // scale 2: 3.5 is halfway, and even is 4
  const std::vector<float> got = Rounded(x, kMxfp4);
  EXPECT_EQ(got[0], 8);
  EXPECT_EQ(got[1], 2);  // 1.25 -> 1
}

TEST_P(BlockScaledTest, Mxfp8ByHand) {
  std::vector<float> x(32, 0.0f);
  x[0] = 1.0f;     // scale 2^-8: 256
  x[1] = 0.0664f;  // 16.9984 -> 16 of 16, 18
  const std::vector<float> got = Rounded(x, kMxfp8);
  EXPECT_EQ(got[0], 1);
  EXPECT_EQ(got[1], 0.0625f);
}

// Values of all sizes, groups cut short by the row's end, both types of x.
TEST_P(BlockScaledTest, RoundingEqualsTheReferenceBitForBit) {
  for (const Input& input : {kNvfp4, kMxfp4, kMxfp8}) {
    for (const int64_t in : {1, 15, 16, 33, 64, 100}) {
      for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
        const Tensor x = NormalMatrix(random_, ActivationType(compute), 40, in);
        for (int64_t t = 0; t < x.rows(); ++t) {
          const double size = std::ldexp(1.0, static_cast<int>(t) - 20);
          for (int64_t i = 0; i < in; ++i) Set(x, t, i, At(x, t, i) * size);
        }
        const QuantizedLinear q = Identity(input, in, 37.5f);
        const auto w = backend().PackQuantized(exec(), q, compute);
        ASSERT_EQ(w->compute(), compute);
        const auto reference_w = reference().PackQuantized(reference_exec(), q, compute);
        const Tensor want = HostTensor(DType::kF32, x.rows(), in);
        reference().MatMul(reference_exec(), x, *reference_w, {}, MatMulMode::kStore, want);
        EXPECT_TRUE(Within(Product(tested(), x, *w), want, Exactly()))
            << Describe(q.scheme) << ", " << in;
      }
    }
  }
}

TEST_P(BlockScaledTest, BadValuesStayInTheirToken) {
  for (const Input& input : {kNvfp4, kMxfp4, kMxfp8}) {
    for (const float bad :
         {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
      QuantizedLinear q = Identity(input, 64, 100);
      q.out = 2;
      q.codes.assign(128, 0);
      q.scales.assign(2, 1);
      std::vector<float> x(128, 1.0f);
      x[40] = bad;  // of token 0
      const auto w = backend().PackQuantized(exec(), q, Compute::kF32);
      const Tensor y = Product(tested(), ViewOf(x.data(), 2, 64), *w);
      EXPECT_TRUE(std::isnan(y.Row<float>(0)[0]));  // NaN * 0
      EXPECT_EQ(y.Row<float>(1)[0], 0);
    }
  }
}

// Rounding x by hand and multiplying it by the same weight without rounding gives the same bits.
TEST_P(BlockScaledTest, ProductsAreThoseOfRoundedInputs) {
  for (const Input& input : {kNvfp4, kMxfp4, kMxfp8}) {
    const int64_t in = 96;
    QuantizedLinear q = Identity(input, in, 300);
    q.out = 70;
    q.codes.clear();
    for (int64_t i = 0; i < q.out * in; ++i) {
      q.codes.push_back(static_cast<int8_t>(random_.Int(0, 15)));
    }
    q.scales.clear();
    for (int64_t i = 0; i < q.out; ++i) {
      q.scales.push_back(static_cast<float>(random_.Uniform(0.01, 0.02)));
    }
    const Tensor x = NormalMatrix(random_, DType::kF32, 7, in);
    const auto identity = backend().PackQuantized(exec(), Identity(input, in, 300), Compute::kF32);
    const Tensor rounded = Product(tested(), x, *identity);
    const Tensor got = Product(tested(), x, *backend().PackQuantized(exec(), q, Compute::kF32));
    q.scheme.input = {};
    const Tensor want =
        Product(tested(), rounded, *backend().PackQuantized(exec(), q, Compute::kF32));
    EXPECT_TRUE(SameBits(got, want));
  }
}

QUANTMILL_ALL_BACKENDS(BlockScaledTest);

}  // namespace
}  // namespace quantmill::test
