// MatMul with rounded inputs on every backend: integers bit for bit as the reference, numbers
// within the bound of their F32 sums.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

using Input = InputScheme;

struct Shape {
  int64_t tokens;
  int64_t in;
  int64_t out;
};

// Tiles have 6 rows and 8, 16 or 64 columns; K blocks 768 steps of one to four inputs.
const std::vector<Shape> kShapes = {{0, 8, 8},    {1, 1, 1},    {1, 0, 3},     {3, 5, 0},
                                    {5, 7, 63},   {6, 64, 64},  {7, 65, 65},   {1, 131, 17},
                                    {13, 127, 8}, {97, 100, 9}, {12, 769, 67}, {2, 3077, 70},
                                    {7, 1538, 66}};

struct Case {
  const char* name;
  QuantScheme scheme;
};

QuantScheme Scheme(CodeType type, int bits, int64_t group_size, Input input) {
  QuantScheme scheme;
  scheme.code_type = type;
  scheme.bits = bits;
  scheme.group_size = group_size;
  scheme.scale_dtype = DType::kF32;
  scheme.input = input;
  return scheme;
}

QuantScheme Asymmetric(QuantScheme scheme) {
  scheme.symmetric = false;
  return scheme;
}

constexpr Input kInt8{.type = Input::Type::kInt8};
constexpr Input kInt8Static{.type = Input::Type::kInt8, .dynamic = false};
constexpr Input kInt8Zero{.type = Input::Type::kInt8, .dynamic = false, .symmetric = false};
constexpr Input kInt8Groups{.type = Input::Type::kInt8, .group_size = 64};
constexpr Input kFp8{.type = Input::Type::kFp8};
constexpr Input kFp8Static{.type = Input::Type::kFp8, .dynamic = false};
constexpr Input kFp8Groups{.type = Input::Type::kFp8, .group_size = 128};
constexpr int64_t kRow = QuantScheme::kPerChannel;

const std::vector<Case> kIntegers = {
    {"w8a8", Scheme(CodeType::kInt, 8, kRow, kInt8)},
    {"w8a8 static", Scheme(CodeType::kInt, 8, kRow, kInt8Static)},
    {"w8a8 static, zero point", Scheme(CodeType::kInt, 8, kRow, kInt8Zero)},
    {"w8a8, zero points of both", Asymmetric(Scheme(CodeType::kInt, 8, kRow, kInt8Zero))},
    {"w4a8 in groups", Scheme(CodeType::kInt, 4, 32, kInt8)},
    {"w4a8 in odd groups, zero points", Asymmetric(Scheme(CodeType::kInt, 4, 7, kInt8))},
    {"w8a8, inputs in groups", Scheme(CodeType::kInt, 8, kRow, kInt8Groups)},
};

QuantScheme Fp8Blocks() {
  QuantScheme scheme = Scheme(CodeType::kFp8, 8, 128, kFp8Groups);
  scheme.row_block = 128;
  return scheme;
}

const std::vector<Case> kNumbers = {
    {"fp8", Scheme(CodeType::kFp8, 8, kRow, kFp8)},
    {"fp8 static", Scheme(CodeType::kFp8, 8, kRow, kFp8Static)},
    {"fp8 blocks", Fp8Blocks()},
    {"w4a8-fp8", Scheme(CodeType::kInt, 4, 128, kFp8)},
    {"w4a8-fp8, zero points, odd groups", Asymmetric(Scheme(CodeType::kInt, 4, 33, kFp8))},
    {"fp4 weights", Scheme(CodeType::kFp4, 4, 16, kFp8)},
};

QuantizedLinear RandomLinear(Random& random, const QuantScheme& scheme, int64_t out, int64_t in) {
  QuantizedLinear q;
  q.scheme = scheme;
  q.out = out;
  q.in = in;
  for (int64_t i = 0; i < out * in; ++i) {
    int64_t code = random.Int(scheme.min_code(), scheme.max_code());
    if (scheme.code_type == CodeType::kFp8 && (code & 0x7F) == 0x7F) code = 0;  // no NaN
    if (scheme.code_type == CodeType::kFp4) code = random.Int(0, 15);
    q.codes.push_back(static_cast<int8_t>(code));
  }
  for (int64_t i = 0; i < out * q.groups(); ++i) {
    q.scales.push_back(static_cast<float>(random.Uniform(-0.02, 0.02)));
    if (scheme.symmetric) continue;
    q.zero_points.push_back(static_cast<int8_t>(random.Int(scheme.min_code(), scheme.max_code())));
  }
  if (!scheme.input.dynamic) q.input_scale = 0.017f;
  if (!scheme.input.symmetric) q.input_zero_point = -37;
  return q;
}

class RoundedMatMulTest : public BackendTest {
 protected:
  static Tensor Multiply(BackendRun& run, ConstMatrix x, const PackedLinear& w, ConstMatrix bias,
                         MatMulMode mode, ConstMatrix before) {
    const Tensor y = run.OnDevice(before);
    const Tensor device_x = run.OnDevice(x);
    run.backend().MatMul(run.exec(), device_x, w, bias, mode, y);
    return run.OnHost(y);
  }
  static Tensor Product(BackendRun& run, ConstMatrix x, const PackedLinear& w) {
    const Tensor before = HostTensor(DType::kF32, x.rows, w.out());
    Fill(before, 7);
    return Multiply(run, x, w, {}, MatMulMode::kStore, before);
  }
  Tensor Wanted(ConstMatrix x, const QuantizedLinear& q, Compute compute) {
    const auto w = reference().PackQuantized(reference_exec(), q, compute);
    Tensor y = HostTensor(DType::kF32, x.rows, q.out);
    reference().MatMul(reference_exec(), x, *w, {}, MatMulMode::kStore, y);
    return y;
  }

  // Bounds the error of the F32 sums: the reference's product of magnitudes stands for |x| . |w|,
  // and every product goes through at most in + (segments + 3) roundings.
  Bound SumBound(ConstMatrix x, const QuantizedLinear& q, Compute compute) {
    QuantizedLinear magnitudes = q;
    magnitudes.scheme.code_type = CodeType::kFp8;
    magnitudes.scheme.symmetric = true;
    magnitudes.zero_points.clear();
    // |code - zero| is at most 15, exact in E4M3; numbers keep theirs.
    for (int64_t o = 0; o < q.out; ++o) {
      for (int64_t i = 0; i < q.in; ++i) {
        const auto at = static_cast<size_t>(o * q.in + i);
        float number = NumberOf(q.scheme.code_type, q.codes[at]);
        const int64_t group = i / q.scheme.GroupSizeFor(q.in);
        if (!q.scheme.symmetric)
          number -= q.zero_points[static_cast<size_t>(o * q.groups() + group)];
        magnitudes.codes[at] = NearestCode(CodeType::kFp8, std::fabs(number));
      }
    }
    for (float& scale : magnitudes.scales) scale = std::fabs(scale);
    const Tensor magnitude_x = HostTensor(x.dtype, x.rows, x.cols);
    for (int64_t t = 0; t < x.rows; ++t) {
      for (int64_t i = 0; i < x.cols; ++i) Set(magnitude_x, t, i, std::abs(At(x, t, i)));
    }
    auto sums = std::make_shared<Tensor>(Wanted(magnitude_x, magnitudes, compute));
    const int64_t roundings = x.cols + q.groups() + x.cols / 128 + 4;
    return [sums, roundings](int64_t r, int64_t c, double want) {
      return DotBound(roundings, 1.01 * sums->Row<float>(r)[c], want, UnitRoundoff(DType::kF32),
                      UnitRoundoff(DType::kF32));
    };
  }

  Random random_{23};
};

// One token by hand: absmax 127 gives scale 1.
TEST_P(RoundedMatMulTest, ByHand) {
  QuantizedLinear q;
  q.scheme = Scheme(CodeType::kInt, 8, kRow, kInt8);
  q.out = 2;
  q.in = 3;
  q.codes = {1, -128, 3, 2, 0, 127};
  q.scales = {0.5f, -2};
  const std::vector<float> x = {127, -2.5f, 1.5f};  // codes 127, -2, 2: ties to even
  const auto w = backend().PackQuantized(exec(), q, Compute::kF32);
  const Tensor got = Product(tested(), ViewOf(x.data(), 1, 3), *w);
  EXPECT_EQ(got.Row<float>(0)[0], 0.5f * (127 + 256 + 6));
  EXPECT_EQ(got.Row<float>(0)[1], -2.0f * (254 + 254));
}

TEST_P(RoundedMatMulTest, StaticZeroPointByHand) {
  QuantizedLinear q;
  q.scheme = Scheme(CodeType::kInt, 8, kRow, kInt8Zero);
  q.out = 1;
  q.in = 2;
  q.codes = {3, -1};
  q.scales = {1};
  q.input_scale = 0.5f;
  q.input_zero_point = -100;
  // 20 / 0.5 - 100 = -60; 1000 / 0.5 - 100 is clamped to 127, which stands for 113.5.
  const std::vector<float> x = {20, 1000};
  const auto w = backend().PackQuantized(exec(), q, Compute::kF32);
  const Tensor got = Product(tested(), ViewOf(x.data(), 1, 2), *w);
  EXPECT_EQ(got.Row<float>(0)[0], 3 * 20 - 113.5f);
}

TEST_P(RoundedMatMulTest, IntegersEqualTheReferenceBitForBit) {
  for (const Case& c : kIntegers) {
    for (const Shape& s : kShapes) {
      for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
        SCOPED_TRACE(std::string(c.name) + ", " + std::to_string(s.tokens) + " x " +
                     std::to_string(s.in) + " x " + std::to_string(s.out));
        const QuantizedLinear q = RandomLinear(random_, c.scheme, s.out, s.in);
        const Tensor x = NormalMatrix(random_, ActivationType(compute), s.tokens, s.in);
        const auto w = backend().PackQuantized(exec(), q, compute);
        ASSERT_EQ(w->compute(), compute);
        EXPECT_TRUE(SameBits(Product(tested(), x, *w), Wanted(x, q, compute)));
      }
    }
  }
}

TEST_P(RoundedMatMulTest, NumbersMatchTheReference) {
  for (const Case& c : kNumbers) {
    for (const Shape& s : kShapes) {
      for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
        SCOPED_TRACE(std::string(c.name) + ", " + std::to_string(s.tokens) + " x " +
                     std::to_string(s.in) + " x " + std::to_string(s.out));
        const QuantizedLinear q = RandomLinear(random_, c.scheme, s.out, s.in);
        const Tensor x = NormalMatrix(random_, ActivationType(compute), s.tokens, s.in);
        const auto w = backend().PackQuantized(exec(), q, compute);
        EXPECT_TRUE(
            Within(Product(tested(), x, *w), Wanted(x, q, compute), SumBound(x, q, compute)));
      }
    }
  }
}

// Numbers whose F32 sums are exact: the rounding of inputs has no tolerance of its own. Values
// around every midpoint of E4M3, subnormal ones and ones past 448 included.
TEST_P(RoundedMatMulTest, E4M3InputsAreExact) {
  QuantizedLinear q;
  q.scheme = Scheme(CodeType::kFp8, 8, kRow, kFp8Static);
  q.out = 1;
  q.in = 1;
  q.codes = {0x38};  // 1
  q.scales = {1};
  q.input_scale = 0.125f;
  std::vector<float> x;
  for (int code = 0; code < 0x7E; ++code) {
    const float low = FromE4M3(static_cast<uint8_t>(code));
    const float high = FromE4M3(static_cast<uint8_t>(code + 1));
    const float middle = (low + high) / 2;
    for (const float value :
         {low, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 500.0f), high}) {
      x.push_back(value * 0.125f);
      x.push_back(-value * 0.125f);
    }
  }
  for (const float value : {449.0f, 1e30f, 1e-30f}) x.push_back(value);
  const ConstMatrix tokens = ViewOf(x.data(), static_cast<int64_t>(x.size()), 1);
  const auto w = backend().PackQuantized(exec(), q, Compute::kF32);
  const Tensor got = Product(tested(), tokens, *w);
  for (size_t t = 0; t < x.size(); ++t) {
    const float want = FromE4M3(ToE4M3(x[t] / 0.125f)) * 0.125f;
    EXPECT_EQ(got.Row<float>(static_cast<int64_t>(t))[0], want) << x[t];
  }
}

TEST_P(RoundedMatMulTest, BiasModesAndOutputTypes) {
  for (const Case& c : {kIntegers[0], kIntegers[4], kNumbers[0], kNumbers[2]}) {
    SCOPED_TRACE(c.name);
    const QuantizedLinear q = RandomLinear(random_, c.scheme, 70, 300);
    const Tensor x = NormalMatrix(random_, DType::kF32, 9, 300);
    const Tensor host_bias = NormalMatrix(random_, DType::kF32, 1, 70);
    const Tensor bias = OnDevice(host_bias);
    const Tensor before = NormalMatrix(random_, DType::kF32, 9, 70);
    const auto w = backend().PackQuantized(exec(), q, Compute::kF32);
    const Tensor plain = Product(tested(), x, *w);
    const Tensor stored = Multiply(tested(), x, *w, bias, MatMulMode::kStore, before);
    const Tensor added = Multiply(tested(), x, *w, bias, MatMulMode::kAdd, before);
    const Tensor half =
        Multiply(tested(), x, *w, bias, MatMulMode::kStore, HostTensor(DType::kBF16, 9, 70));
    EXPECT_TRUE(SameBits(half, Converted(stored, DType::kBF16)));
    for (int64_t t = 0; t < 9; ++t) {
      for (int64_t o = 0; o < 70; ++o) {
        const float want = plain.Row<float>(t)[o] + host_bias.Row<float>(0)[o];
        EXPECT_EQ(stored.Row<float>(t)[o], want);
        EXPECT_EQ(added.Row<float>(t)[o], before.Row<float>(t)[o] + want);
      }
    }
  }
}

TEST_P(RoundedMatMulTest, RowsAndThreadsDoNotChangeBits) {
  constexpr int64_t kTokens = 201;
  constexpr int64_t kIn = 801;
  constexpr int64_t kOut = 133;
  for (const Case& c : {kIntegers[0], kIntegers[5], kNumbers[0], kNumbers[2], kNumbers[4]}) {
    SCOPED_TRACE(c.name);
    const QuantizedLinear q = RandomLinear(random_, c.scheme, kOut, kIn);
    const Tensor x = NormalMatrix(random_, DType::kF32, kTokens, kIn);
    const auto w = backend().PackQuantized(exec(), q, Compute::kF32);
    const Tensor all = Product(tested(), x, *w);
    for (const int64_t rows : {1, 2, 5, 7, 97}) {
      const Tensor some = Product(tested(), x.view().Rows(101, rows), *w);
      EXPECT_TRUE(SameBits(some, all.view().Rows(101, rows))) << rows << " rows";
    }
    if (IsSlow()) continue;  // its threads are not the backend's
    for (const int threads : {1, 3}) {
      const auto other = WithThreads(threads);
      const auto other_w = other->backend().PackQuantized(other->exec(), q, Compute::kF32);
      EXPECT_TRUE(SameBits(Product(*other, x, *other_w), all)) << threads << " threads";
    }
  }
}

TEST_P(RoundedMatMulTest, StridedOperands) {
  const Tensor x = NormalMatrix(random_, DType::kF32, 9, 80);
  const QuantizedLinear q = RandomLinear(random_, kIntegers[0].scheme, 67, 41);
  const auto w = backend().PackQuantized(exec(), q, Compute::kF32);
  const Tensor device_x = OnDevice(x);
  const Tensor y = OnDevice(x);
  backend().MatMul(exec(), device_x.view().Cols(3, 41), *w, {}, MatMulMode::kStore,
                   y.view().Cols(1, 67));
  const Tensor got = OnHost(y);
  EXPECT_TRUE(SameBits(got.view().Cols(1, 67), Wanted(x.view().Cols(3, 41), q, Compute::kF32)));
  EXPECT_TRUE(SameBits(got.view().Cols(0, 1), x.view().Cols(0, 1)));
  EXPECT_TRUE(SameBits(got.view().Cols(68, 12), x.view().Cols(68, 12)));
}

TEST_P(RoundedMatMulTest, ZeroTokensGiveZeros) {
  const Tensor x = HostTensor(DType::kF32, 8, 50);
  Fill(x, 0);
  const Tensor want = HostTensor(DType::kF32, 8, 65);
  Fill(want, 0);
  for (const Case& c : {kIntegers[0], kIntegers[3], kNumbers[0], kNumbers[1]}) {
    const QuantizedLinear q = RandomLinear(random_, c.scheme, 65, 50);
    const auto w = backend().PackQuantized(exec(), q, Compute::kF32);
    EXPECT_TRUE(Within(Product(tested(), x, *w), want, Exactly())) << c.name;
  }
}

TEST_P(RoundedMatMulTest, NanStaysInItsToken) {
  for (const Case& c : {kIntegers[0], kIntegers[1], kIntegers[4], kNumbers[0], kNumbers[1]}) {
    SCOPED_TRACE(c.name);
    const Tensor x = NormalMatrix(random_, DType::kF32, 14, 66);
    Set(x, 3, 65, std::numeric_limits<double>::quiet_NaN());
    const QuantizedLinear q = RandomLinear(random_, c.scheme, 70, 66);
    const auto w = backend().PackQuantized(exec(), q, Compute::kF32);
    const Tensor got = Product(tested(), x, *w);
    for (int64_t t = 0; t < 14; ++t) {
      for (int64_t o = 0; o < 70; ++o) {
        EXPECT_EQ(std::isnan(got.Row<float>(t)[o]), t == 3) << t << ", " << o;
      }
    }
  }
}

// The largest I32 sums that W8A8 promises to hold.
TEST_P(RoundedMatMulTest, LongRowsDoNotOverflow) {
  constexpr int64_t kIn = 57344;
  QuantizedLinear q;
  q.scheme = Scheme(CodeType::kInt, 8, kRow, kInt8Static);
  q.out = 1;
  q.in = kIn;
  q.codes.assign(kIn, -128);
  q.scales = {1};
  q.input_scale = 1;
  const Tensor x = HostTensor(DType::kF32, 1, kIn);
  Fill(x, -200);
  const auto w = backend().PackQuantized(exec(), q, Compute::kF32);
  EXPECT_EQ(Product(tested(), x, *w).Row<float>(0)[0], 128.0f * 128.0f * kIn);
}

QUANTMILL_ALL_BACKENDS(RoundedMatMulTest);

}  // namespace
}  // namespace quantmill::test
