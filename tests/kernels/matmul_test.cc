// PackDense, PackQuantized, EmbedRows, AddRows and MatMul on every backend against the reference.
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

struct Shape {
  int64_t tokens;
  int64_t in;
  int64_t out;
};

// Tiles have 6 rows and 8, 16 or 64 columns, K blocks at most 768 or 1536 inputs, row blocks 96.
const std::vector<Shape> kShapes = {
    {0, 8, 8},    {1, 1, 1},     {1, 0, 3},     {3, 5, 0},      {5, 7, 63},    {6, 64, 64},
    {7, 65, 65},  {1, 131, 17},  {4, 128, 16},  {2, 33, 129},   {13, 127, 8},  {96, 31, 97},
    {97, 100, 9}, {191, 37, 70}, {12, 769, 67}, {5, 1537, 131}, {1, 1601, 70}, {100, 1538, 72},
};

std::string Describe(const Shape& s) {
  return "tokens " + std::to_string(s.tokens) + ", in " + std::to_string(s.in) + ", out " +
         std::to_string(s.out);
}

// Any code but NaN.
int8_t RandomCode(Random& random, const QuantScheme& scheme) {
  switch (scheme.code_type) {
    case CodeType::kInt:
      return static_cast<int8_t>(random.Int(scheme.min_code(), scheme.max_code()));
    case CodeType::kFp8:
      return static_cast<int8_t>(random.Int(0, 0x7E) | (random.Int(0, 1) << 7));
    case CodeType::kFp4:
    case CodeType::kIq4Nl:
      return static_cast<int8_t>(random.Int(0, 15));
  }
  return 0;
}

QuantizedLinear RandomLinear(Random& random, const QuantScheme& scheme, int64_t out, int64_t in) {
  QuantizedLinear q;
  q.scheme = scheme;
  q.out = out;
  q.in = in;
  for (int64_t i = 0; i < out * in; ++i) q.codes.push_back(RandomCode(random, scheme));
  // NVFP4's global scale brings the scales into the range of E4M3.
  if (scheme.has_global_scale()) q.global_scale = 1e4f;
  for (int64_t o = 0; o < out; ++o) {
    for (int64_t g = 0; g < q.groups(); ++g) {
      if (o % scheme.RowBlockFor(out) != 0) {
        q.scales.push_back(q.scales[static_cast<size_t>((o - 1) * q.groups() + g)]);
        continue;
      }
      const double sign = scheme.symmetric && random.Int(0, 3) == 0 ? -1 : 1;
      const double scale = random.Uniform(0.001, 0.02) * q.global_scale;
      // E8M0 has no sign.
      q.scales.push_back(
          RoundTo(scheme.scale_dtype,
                  static_cast<float>(scheme.scale_dtype == DType::kF8E8M0 ? scale : sign * scale)));
    }
  }
  for (size_t i = 0; i < q.scales.size() && !scheme.symmetric; ++i) {
    q.zero_points.push_back(static_cast<int8_t>(random.Int(scheme.min_code(), scheme.max_code())));
  }
  return q;
}

class MatMulTest : public BackendTest {
 protected:
  // Those that differ here (SumsOfPartsAreF32WhereNothingIsSplit).
  std::vector<Compute> Computes() {
    if (!backend().Info().splits_f32) return {Compute::kF32, Compute::kBF16};
    return {Compute::kF32, Compute::kBF16, Compute::kBF16x3};
  }

  // Host result of one MatMul from host operands; y starts as `before`.
  static Tensor Multiply(BackendRun& run, ConstMatrix x, const PackedLinear& w, ConstMatrix bias,
                         MatMulMode mode, ConstMatrix before) {
    const Tensor y = run.OnDevice(before);
    const Tensor device_x = run.OnDevice(x);
    const Tensor device_bias = run.OnDevice(bias);
    run.backend().MatMul(run.exec(), device_x, w, bias.data == nullptr ? bias : device_bias, mode,
                         y);
    return run.OnHost(y);
  }
  // kStore into F32.
  static Tensor Product(BackendRun& run, ConstMatrix x, const PackedLinear& w) {
    const Tensor before = HostTensor(DType::kF32, x.rows, w.out());
    Fill(before, 7);
    return Multiply(run, x, w, {}, MatMulMode::kStore, before);
  }

  // Bounds the error of x . w + bias (+ before), given |x| . |w|. The bound counts two roundings
  // per term, for instruction sets without FMA; of sums of parts, one for each of six products and
  // two for what the others would have added.
  Bound DotBoundOf(ConstMatrix x, ConstMatrix weight, Compute compute, DType y) {
    const Tensor magnitude_x = Magnitude(x);
    const Tensor magnitude_w = Magnitude(weight);
    const auto w = reference().PackDense(reference_exec(), magnitude_w, compute);
    auto sums = std::make_shared<Tensor>(HostTensor(DType::kF32, x.rows, weight.rows));
    reference().MatMul(reference_exec(), magnitude_x, *w, {}, MatMulMode::kStore, *sums);
    const int64_t terms = (compute == Compute::kBF16x3 ? 8 : 2) * x.cols + 2;
    return [sums, terms, y](int64_t r, int64_t c, double want) {
      // Bias and the former y are below 8 in size.
      const double abs_dot = sums->Row<float>(r)[c] + 16.0;
      return DotBound(terms, abs_dot, want, UnitRoundoff(DType::kF32), UnitRoundoff(y));
    };
  }

  static Tensor Magnitude(ConstMatrix m) {
    Tensor out = HostTensor(m.dtype, m.rows, m.cols);
    for (int64_t r = 0; r < m.rows; ++r) {
      for (int64_t c = 0; c < m.cols; ++c) Set(out, r, c, std::abs(At(m, r, c)));
    }
    return out;
  }

  Random random_{11};
};

TEST_P(MatMulTest, DenseMatchesReference) {
  for (const Shape& s : kShapes) {
    for (const Compute compute : Computes()) {
      for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
        SCOPED_TRACE(Describe(s) + ", " + NameOf(compute) + " of " +
                     std::string(quantmill::NameOf(dtype)));
        const Tensor x = NormalMatrix(random_, ActivationType(compute), s.tokens, s.in);
        const Tensor weight = NormalMatrix(random_, dtype, s.out, s.in, 0.1);
        const auto w = backend().PackDense(exec(), weight, compute);
        ASSERT_EQ(w->in(), s.in);
        ASSERT_EQ(w->out(), s.out);
        ASSERT_EQ(w->compute(), compute);
        const auto want_w = reference().PackDense(reference_exec(), weight, compute);
        const Tensor want = HostTensor(DType::kF32, s.tokens, s.out);
        reference().MatMul(reference_exec(), x, *want_w, {}, MatMulMode::kStore, want);
        EXPECT_TRUE(
            Within(Product(tested(), x, *w), want, DotBoundOf(x, weight, compute, DType::kF32)));
      }
    }
  }
}

TEST_P(MatMulTest, BiasModesAndOutputTypes) {
  for (const Shape& s : kShapes) {
    for (const Compute compute : Computes()) {
      SCOPED_TRACE(Describe(s) + ", " + NameOf(compute));
      const Tensor x = NormalMatrix(random_, ActivationType(compute), s.tokens, s.in);
      const Tensor weight = NormalMatrix(random_, DType::kF32, s.out, s.in, 0.1);
      const Tensor bias = NormalMatrix(random_, DType::kF32, 1, s.out);
      const Tensor before = NormalMatrix(random_, DType::kF32, s.tokens, s.out);
      const auto w = backend().PackDense(exec(), weight, compute);
      const auto want_w = reference().PackDense(reference_exec(), weight, compute);

      const Tensor want = HostTensor(DType::kF32, s.tokens, s.out);
      reference().Upload(reference_exec(), before, want);
      reference().MatMul(reference_exec(), x, *want_w, bias, MatMulMode::kAdd, want);
      const Tensor added = Multiply(tested(), x, *w, bias, MatMulMode::kAdd, before);
      EXPECT_TRUE(Within(added, want, DotBoundOf(x, weight, compute, DType::kF32)));

      // On the CPU, kAdd adds exactly what kStore stores; libraries of GPUs add the bias last.
      const Tensor stored = Multiply(tested(), x, *w, bias, MatMulMode::kStore, before);
      for (int64_t r = 0; r < s.tokens; ++r) {
        for (int64_t c = 0; c < s.out; ++c) stored.Row<float>(r)[c] += before.Row<float>(r)[c];
      }
      if (backend().Info().name == "cpu") {
        EXPECT_TRUE(SameBits(stored, added));
      }

      // A BF16 result is the F32 one rounded.
      const Tensor exact = Multiply(tested(), x, *w, bias, MatMulMode::kStore, before);
      const Tensor half = Multiply(tested(), x, *w, bias, MatMulMode::kStore,
                                   HostTensor(DType::kBF16, s.tokens, s.out));
      EXPECT_TRUE(SameBits(half, Converted(exact, DType::kBF16)));
    }
  }
}

TEST_P(MatMulTest, QuantizedEqualsDenseOfDequantized) {
  struct Case {
    int bits;
    bool symmetric;
    int64_t group_size;
    DType scale_dtype;
    CodeType code_type = CodeType::kInt;
    int64_t row_block = 1;
  };
  const std::vector<Case> cases = {
      {4, true, 128, DType::kF16},
      {4, false, 32, DType::kBF16},
      {2, false, 7, DType::kF32},
      {3, true, QuantScheme::kPerChannel, DType::kF16},
      {5, true, 33, DType::kBF16},
      {8, false, QuantScheme::kPerChannel, DType::kF32},
      {8, true, 128, DType::kF16},
      {8, true, QuantScheme::kPerChannel, DType::kBF16, CodeType::kFp8},
      {8, true, QuantScheme::kPerChannel, DType::kF32, CodeType::kFp8, QuantScheme::kAllRows},
      {8, true, 128, DType::kF32, CodeType::kFp8, 128},
      {4, true, 16, DType::kF8E4M3, CodeType::kFp4},
      {4, true, 32, DType::kF8E8M0, CodeType::kFp4},
      {4, true, 32, DType::kF16, CodeType::kIq4Nl}};
  for (const Case& c : cases) {
    for (const Shape& s : kShapes) {
      for (const Compute compute : Computes()) {
        QuantScheme scheme;
        scheme.bits = c.bits;
        scheme.symmetric = c.symmetric;
        scheme.group_size = c.group_size;
        scheme.scale_dtype = c.scale_dtype;
        scheme.code_type = c.code_type;
        scheme.row_block = c.row_block;
        SCOPED_TRACE(Describe(s) + ", " + quantmill::Describe(scheme) + ", " + NameOf(compute));
        const QuantizedLinear q = RandomLinear(random_, scheme, s.out, s.in);
        const Tensor x = NormalMatrix(random_, ActivationType(compute), s.tokens, s.in);
        const Tensor weight = HostTensor(DType::kF32, s.out, s.in);
        Dequantize(q, weight);
        const auto packed = backend().PackQuantized(exec(), q, compute);
        const auto dense = backend().PackDense(exec(), weight, compute);
        EXPECT_TRUE(SameBits(Product(tested(), x, *packed), Product(tested(), x, *dense)));
        if (s.out >= 64 && s.in >= 64) {
          EXPECT_LT(packed->bytes(), dense->bytes());
        }
      }
    }
  }
}

// Every code of a number in turn, so that no bits of one are forgotten: y = w for x = 1.
TEST_P(MatMulTest, EveryCodeOfANumber) {
  for (const CodeType type : {CodeType::kFp8, CodeType::kFp4, CodeType::kIq4Nl}) {
    QuantizedLinear q;
    q.scheme.code_type = type;
    q.scheme.bits = type == CodeType::kFp8 ? 8 : 4;
    q.scheme.group_size = QuantScheme::kPerChannel;
    q.out = type == CodeType::kFp8 ? 256 : 16;  // the NaN of E4M3 included
    q.in = 1;
    q.scales.assign(static_cast<size_t>(q.out), -0.5f);
    for (int64_t code = 0; code < q.out; ++code) q.codes.push_back(static_cast<int8_t>(code));
    for (const Compute compute : Computes()) {
      for (const int64_t tokens : {1, 20}) {
        const Tensor x = HostTensor(ActivationType(compute), tokens, 1);
        Fill(x, 1);
        const Tensor got = Product(tested(), x, *backend().PackQuantized(exec(), q, compute));
        for (int64_t o = 0; o < q.out; ++o) {
          const float want = NumberOf(type, q.codes[static_cast<size_t>(o)]) * -0.5f;
          const float value = got.Row<float>(tokens - 1)[o];
          EXPECT_TRUE(value == want || (std::isnan(value) && std::isnan(want)))
              << "code " << o << ": " << value << ", wanted " << want;
        }
      }
    }
  }
}

TEST_P(MatMulTest, RowsAndThreadsDoNotChangeBits) {
  constexpr int64_t kTokens = 257;
  constexpr int64_t kIn = 801;
  constexpr int64_t kOut = 133;
  QuantScheme scheme;
  scheme.group_size = 64;
  const QuantizedLinear q = RandomLinear(random_, scheme, kOut, kIn);
  for (const Compute compute : Computes()) {
    const Tensor x = NormalMatrix(random_, ActivationType(compute), kTokens, kIn);
    for (const std::string type : {"F32", "F16", "BF16", "codes"}) {
      SCOPED_TRACE(std::string(NameOf(compute)) + " of " + type);
      const DType dtype = type == "F32" ? DType::kF32 : type == "F16" ? DType::kF16 : DType::kBF16;
      const Tensor weight = NormalMatrix(random_, dtype, kOut, kIn, 0.1);
      const auto pack = [&](BackendRun& run) {
        return type == "codes" ? run.backend().PackQuantized(run.exec(), q, compute)
                               : run.backend().PackDense(run.exec(), weight, compute);
      };
      const auto w = pack(tested());
      const Tensor all = Product(tested(), x, *w);
      for (const int64_t rows : {1, 2, 4, 5, 6, 7, 95, 97}) {
        for (const int64_t first : {int64_t{0}, int64_t{101}}) {
          const Tensor some = Product(tested(), x.view().Rows(first, rows), *w);
          EXPECT_TRUE(SameBits(some, all.view().Rows(first, rows))) << rows << " from " << first;
        }
      }
      for (const int threads : {1, 3}) {
        const auto other = WithThreads(threads);
        const auto other_w = pack(*other);
        EXPECT_TRUE(SameBits(Product(*other, x, *other_w), all)) << threads << " threads";
      }
    }
  }
}

// However an instruction set takes subnormal numbers, it takes them so for any number of rows.
TEST_P(MatMulTest, SubnormalNumbersOfFewRowsHaveTheSameBits) {
  QuantScheme scheme;
  scheme.group_size = 32;
  scheme.scale_dtype = DType::kF32;
  QuantizedLinear q = RandomLinear(random_, scheme, 70, 96);
  for (size_t i = 0; i < q.scales.size(); ++i) {  // subnormal, times 8 not; small; as they are
    const size_t output = i / 3;
    q.scales[i] = std::ldexp(q.scales[i], output % 3 == 0 ? -120 : output % 3 == 1 ? -66 : 0);
  }
  for (const Compute compute : Computes()) {
    const Tensor x = NormalMatrix(random_, ActivationType(compute), 20, 96);
    for (int64_t t = 0; t < x.rows(); ++t) {
      for (int64_t i = 0; i < x.cols(); ++i) {
        Set(x, t, i,
            std::ldexp(At(x, t, i), t % 4 == 0   ? -66
                                    : t % 4 == 1 ? -127
                                    : i % 4 == 2 ? -100
                                                 : 20));
      }
    }
    const auto w = backend().PackQuantized(exec(), q, compute);
    const Tensor all = Product(tested(), x, *w);
    for (const int64_t rows : {1, 4}) {
      EXPECT_TRUE(SameBits(Product(tested(), x.view().Rows(3, rows), *w), all.view().Rows(3, rows)))
          << NameOf(compute) << ", " << rows;
    }
  }
}

TEST_P(MatMulTest, StridedOperands) {
  const Tensor x = NormalMatrix(random_, DType::kF32, 9, 80);
  const Tensor weight = NormalMatrix(random_, DType::kF16, 70, 90);
  const Matrix x_part = x.view().Cols(3, 41);
  const auto w = backend().PackDense(exec(), weight.view().Cols(5, 41).Rows(2, 67), Compute::kF32);
  const Tensor device_x = OnDevice(x);
  const Tensor y = OnDevice(x);
  backend().MatMul(exec(), device_x.view().Cols(3, 41), *w, {}, MatMulMode::kStore,
                   y.view().Cols(1, 67));
  const Tensor got = OnHost(y);
  const Tensor want = Product(tested(), OnHost(OnDevice(x_part)), *w);
  EXPECT_TRUE(SameBits(got.view().Cols(1, 67), want));
  // What lies around the result is untouched.
  EXPECT_TRUE(SameBits(got.view().Cols(0, 1), x.view().Cols(0, 1)));
  EXPECT_TRUE(SameBits(got.view().Cols(68, 12), x.view().Cols(68, 12)));
}

// Rows of x may be read in place or copied, depending on where they lie.
TEST_P(MatMulTest, PlacementOfRowsDoesNotChangeBits) {
  for (const Compute compute : Computes()) {
    for (const int64_t stride : {100, 101, 1024, 2048}) {
      const Tensor x = NormalMatrix(random_, ActivationType(compute), 14, stride);
      const Tensor device_x = OnDevice(x);
      for (const int64_t begin : {3, 4}) {
        for (const int64_t in : {40, 41}) {
          SCOPED_TRACE(std::string(NameOf(compute)) + ", stride " + std::to_string(stride) +
                       ", columns " + std::to_string(begin) + " + " + std::to_string(in));
          const Tensor weight = NormalMatrix(random_, DType::kF32, 70, in);
          const auto w = backend().PackDense(exec(), weight, compute);
          const Tensor y = Empty(DType::kF32, 14, 70);
          backend().MatMul(exec(), device_x.view().Cols(begin, in), *w, {}, MatMulMode::kStore, y);
          const Tensor together = HostTensor(ActivationType(compute), 14, in);
          for (int64_t t = 0; t < 14; ++t) {
            for (int64_t i = 0; i < in; ++i) Set(together, t, i, At(x, t, begin + i));
          }
          EXPECT_TRUE(SameBits(OnHost(y), Product(tested(), together, *w)));
        }
      }
    }
  }
}

TEST_P(MatMulTest, NanAndInfinityStayInTheirRowsAndColumns) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const Compute compute : Computes()) {
    for (const int64_t tokens : {3, 14}) {
      const Tensor x = NormalMatrix(random_, ActivationType(compute), tokens, 66);
      const Tensor weight = NormalMatrix(random_, DType::kF32, 70, 66);
      Set(x, 1, 65, nan);
      Set(x, 2, 0, infinity);
      Set(weight, 68, 4, nan);
      const auto w = backend().PackDense(exec(), weight, compute);
      const auto want_w = reference().PackDense(reference_exec(), weight, compute);
      const Tensor want = HostTensor(DType::kF32, tokens, 70);
      reference().MatMul(reference_exec(), x, *want_w, {}, MatMulMode::kStore, want);
      const Tensor got = Product(tested(), x, *w);
      const auto kind = [](float v) { return std::isnan(v) ? 2 : std::isinf(v) ? 1 : 0; };
      for (int64_t t = 0; t < tokens; ++t) {
        for (int64_t o = 0; o < 70; ++o) {
          ASSERT_EQ(kind(got.Row<float>(t)[o]), kind(want.Row<float>(t)[o])) << t << ", " << o;
        }
      }
    }
  }
}

// An infinity times the zero parts of a number is NaN, and so it is with parts of what BF16 cannot
// hold; the products of the whole numbers are infinities and numbers.
TEST_P(MatMulTest, WhatPartsCannotHoldIsMultipliedWhole) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float largest = std::numeric_limits<float>::max();
  const Tensor x = HostTensor(DType::kF32, 3, 40);
  Fill(x, 0);
  const Tensor weight = HostTensor(DType::kF32, 2, 40);
  Fill(weight, 0.5);
  Set(weight, 1, 35, 1 / 3.0f);
  Set(x, 0, 35, infinity);
  Set(x, 1, 35, -infinity);
  Set(x, 2, 35, largest);
  const Tensor got = Product(tested(), x, *backend().PackDense(exec(), weight, Compute::kBF16x3));
  EXPECT_EQ(got.Row<float>(0)[0], infinity);
  EXPECT_EQ(got.Row<float>(0)[1], infinity);
  EXPECT_EQ(got.Row<float>(1)[0], -infinity);
  EXPECT_EQ(got.Row<float>(1)[1], -infinity);
  EXPECT_GE(got.Row<float>(2)[1], largest / 3);
}

// The point of parts: products of F32, not of BF16.
TEST_P(MatMulTest, SumsOfPartsAreAsGoodAsF32) {
  const Tensor x = NormalMatrix(random_, DType::kF32, 40, 1);
  const Tensor weight = NormalMatrix(random_, DType::kF32, 70, 1);
  const Tensor got = Product(tested(), x, *backend().PackDense(exec(), weight, Compute::kBF16x3));
  for (int64_t t = 0; t < x.rows(); ++t) {
    for (int64_t o = 0; o < weight.rows(); ++o) {
      const double want = At(x, t, 0) * At(weight, o, 0);
      // 2^-23 of the product for the parts that are left out, and the roundings of six sums.
      EXPECT_NEAR(got.Row<float>(t)[o], want, std::abs(want) * (0x1p-23 + 6 * 0x1p-24));
    }
  }
}

TEST_P(MatMulTest, SumsOfPartsAreF32WhereNothingIsSplit) {
  const Tensor x = NormalMatrix(random_, DType::kF32, 20, 66);
  const Tensor weight = NormalMatrix(random_, DType::kF16, 70, 66);
  const auto parts = backend().PackDense(exec(), weight, Compute::kBF16x3);
  const auto f32 = backend().PackDense(exec(), weight, Compute::kF32);
  const bool same = SameBits(Product(tested(), x, *parts), Product(tested(), x, *f32));
  EXPECT_EQ(same, !backend().Info().splits_f32);
  EXPECT_EQ(backend().Info().splits_f32, GetParam() == "cpu_amx");
}

TEST_P(MatMulTest, ZeroRowsGiveZeros) {
  const Tensor x = HostTensor(DType::kF32, 8, 50);
  Fill(x, 0);
  const Tensor weight = NormalMatrix(random_, DType::kF32, 65, 50);
  const Tensor want = HostTensor(DType::kF32, 8, 65);
  Fill(want, 0);
  const auto w = backend().PackDense(exec(), weight, Compute::kF32);
  EXPECT_TRUE(Within(Product(tested(), x, *w), want, Exactly()));
}

TEST_P(MatMulTest, EmbedRows) {
  const std::vector<int32_t> ids = {4, 0, 0, 6, 1};
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t hidden : {0, 1, 15, 64, 131}) {
      const Tensor table = NormalMatrix(random_, dtype, 7, hidden);
      const Tensor got = Empty(DType::kF32, 5, hidden);
      const Tensor want = HostTensor(DType::kF32, 5, hidden);
      backend().EmbedRows(exec(), table, ids, 1.5f, got);
      reference().EmbedRows(reference_exec(), table, ids, 1.5f, want);
      EXPECT_TRUE(SameBits(OnHost(got), want)) << quantmill::NameOf(dtype) << ", " << hidden;
    }
  }
}

TEST_P(MatMulTest, AddRows) {
  const std::vector<int32_t> ids = {4, 0, 0, 6, 1};
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t hidden : {0, 1, 15, 64, 131}) {
      const Tensor table = NormalMatrix(random_, dtype, 7, hidden);
      const Tensor want = NormalMatrix(random_, DType::kF32, 5, hidden);
      const Tensor got = OnDevice(want);
      backend().AddRows(exec(), OnDevice(table), ids, got);
      reference().AddRows(reference_exec(), table, ids, want);
      EXPECT_TRUE(SameBits(OnHost(got), want)) << quantmill::NameOf(dtype) << ", " << hidden;
    }
  }
}

TEST_P(MatMulTest, EmbedRowsChecksIds) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const Tensor table = NormalMatrix(random_, DType::kF32, 7, 4);
  const Tensor on_device = OnDevice(table);
  const Tensor out = Empty(DType::kF32, 1, 4);
  for (const int32_t id : {-1, 7}) {
    const std::vector<int32_t> ids = {id};
    EXPECT_DEATH(backend().EmbedRows(exec(), table, ids, 1, out), "EmbedRows");
    EXPECT_DEATH(backend().AddRows(exec(), on_device, ids, out), "AddRows");
  }
}

QUANTMILL_ALL_BACKENDS(MatMulTest);

}  // namespace
}  // namespace quantmill::test
