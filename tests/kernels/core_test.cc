// kernels/core: conversions, matrices, schemes, errors, the thread pool.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "kernels/core/dtype.h"
#include "kernels/core/error.h"
#include "kernels/core/matrix.h"
#include "kernels/core/scheme.h"
#include "kernels/core/thread_pool.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

// ---- 16-bit floats ----

// The value of a 16-bit pattern with `exponent_bits`, from the definition of the format.
double Decode(uint32_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>((bits >> mantissa_bits) & ((1u << exponent_bits) - 1));
  const double mantissa = bits & ((1u << mantissa_bits) - 1);
  const double sign = (bits & 0x8000u) != 0 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity()
                         : std::numeric_limits<double>::quiet_NaN();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(1 + std::ldexp(mantissa, -mantissa_bits), exponent - bias);
}

// Magnitudes of all finite patterns are in the order of the patterns, so the nearest one follows
// from its neighbours: the oracle of rounding to nearest even.
uint32_t Nearest(double x, int exponent_bits) {
  const uint32_t sign = std::signbit(x) ? 0x8000u : 0;
  const uint32_t infinity = ((1u << exponent_bits) - 1) << (15 - exponent_bits);
  const double magnitude = std::abs(x);
  uint32_t low = 0;
  uint32_t high = infinity;  // stands for the next power of two when rounding
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    (Decode(middle, exponent_bits) <= magnitude ? low : high) = middle;
  }
  const double below = Decode(low, exponent_bits);
  const double above =
      high == infinity ? std::ldexp(1, 1 << (exponent_bits - 1)) : Decode(high, exponent_bits);
  const double to_below = magnitude - below;
  const double to_above = above - magnitude;
  const bool up = to_above < to_below || (to_above == to_below && high % 2 == 0);
  return sign | (up ? high : low);
}

TEST(F16Test, EveryPatternHasItsValueAndRoundTrips) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const F16 half{static_cast<uint16_t>(bits)};
    const double want = Decode(bits, 5);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(ToFloat(half))) << bits;
      ASSERT_TRUE(std::isnan(ToFloat(ToF16(ToFloat(half))))) << bits;
      continue;
    }
    ASSERT_EQ(ToFloat(half), want) << bits;
    ASSERT_EQ(ToF16(ToFloat(half)).bits, bits);
  }
}

TEST(BF16Test, EveryPatternHasItsValueAndRoundTrips) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const BF16 half{static_cast<uint16_t>(bits)};
    const double want = Decode(bits, 8);
    if (std::isnan(want)) {
      ASSERT_TRUE(std::isnan(ToFloat(half))) << bits;
      ASSERT_TRUE(std::isnan(ToFloat(ToBF16(ToFloat(half))))) << bits;
      continue;
    }
    ASSERT_EQ(ToFloat(half), want) << bits;
    ASSERT_EQ(ToBF16(ToFloat(half)).bits, bits);
  }
}

// Floats whose rounding is decided by few bits: around every pattern and every midpoint of two.
template <typename Check>
void ForFloatsNear16BitOnes(int exponent_bits, const Check& check) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const double value = Decode(bits, exponent_bits);
    if (!std::isfinite(value)) continue;
    const double next = Decode(bits + 1, exponent_bits);
    const double middle = std::isfinite(next) ? (value + next) / 2 : value * (1 + 0x1p-12);
    for (const double x : {value, middle}) {
      const auto f = static_cast<float>(x);
      for (const float near : {f, std::nextafter(f, 1e38f), std::nextafter(f, -1e38f)}) {
        if (std::isfinite(near)) check(near);
      }
    }
  }
}

TEST(F16Test, RoundsToNearestEven) {
  const auto check = [](float x) { ASSERT_EQ(ToF16(x).bits, Nearest(x, 5)) << x; };
  ForFloatsNear16BitOnes(5, check);
  Random random(1);
  for (int i = 0; i < 200000; ++i) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(random.Bits()));
    if (std::isfinite(x)) check(x);
  }
  EXPECT_EQ(ToF16(65519.996f).bits, 0x7BFF);
  EXPECT_EQ(ToF16(65520.0f).bits, 0x7C00);
  EXPECT_EQ(ToF16(-std::numeric_limits<float>::infinity()).bits, 0xFC00);
  EXPECT_EQ(ToF16(0x1p-25f).bits, 0);  // a tie between 0 and the smallest subnormal
  EXPECT_EQ(ToF16(std::nextafter(0x1p-25f, 1.0f)).bits, 1);
}

TEST(BF16Test, RoundsToNearestEven) {
  const auto check = [](float x) { ASSERT_EQ(ToBF16(x).bits, Nearest(x, 8)) << x; };
  ForFloatsNear16BitOnes(8, check);
  Random random(2);
  for (int i = 0; i < 200000; ++i) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(random.Bits()));
    if (std::isfinite(x)) check(x);
  }
  EXPECT_EQ(ToBF16(std::numeric_limits<float>::max()).bits, 0x7F80);
  // A NaN whose payload is in the dropped bits stays a NaN.
  EXPECT_TRUE(std::isnan(ToFloat(ToBF16(std::bit_cast<float>(0x7F800001u)))));
}

TEST(DTypeTest, RoundTo) {
  EXPECT_EQ(RoundTo(DType::kF32, 0.1f), 0.1f);
  EXPECT_EQ(RoundTo(DType::kF16, 0.1f), 0.0999755859375f);
  EXPECT_EQ(RoundTo(DType::kBF16, 0.1f), 0.10009765625f);
  EXPECT_DEATH(RoundTo(DType::kI8, 1), "RoundTo");
}

TEST(DTypeTest, NamesAndSizes) {
  EXPECT_EQ(NameOf(DType::kBF16), "BF16");
  EXPECT_EQ(NameOf(DType::kF8E4M3), "F8_E4M3");
  EXPECT_EQ(SizeOf(DType::kF64), 8);
  EXPECT_EQ(SizeOf(DType::kF16), 2);
  EXPECT_EQ(SizeOf(DType::kBool), 1);
}

// ---- matrices ----

TEST(MatrixTest, ViewsAddressRowsAndColumns) {
  std::vector<float> data(12);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<float>(i);
  const Matrix m = MutableViewOf(data.data(), 3, 4);
  const Matrix part = m.Rows(1, 2).Cols(2, 2);
  EXPECT_EQ(part.Row<float>(1)[1], 11);
  EXPECT_FALSE(part.contiguous());
  EXPECT_TRUE(m.Rows(1, 1).Cols(1, 2).contiguous());
  EXPECT_EQ(m.Reshaped(2, 6).Row<float>(1)[0], 6);
  EXPECT_DEATH(part.Reshaped(4, 1), "Reshaped");
}

TEST(TensorTest, OwnsAndMoves) {
  Tensor a = HostTensor(DType::kF32, 3, 5);
  EXPECT_EQ(a.bytes(), 60);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.Row<float>(0)) % 64, 0u);
  const Tensor b = std::move(a);
  EXPECT_TRUE(a.empty());  // NOLINT(bugprone-use-after-move): the state is promised
  EXPECT_FALSE(b.empty());
  EXPECT_FALSE(HostTensor(DType::kF32, 0, 5).empty());
}

TEST(TensorTest, LargeBlocksAreUsable) {
  const Tensor large = HostTensor(DType::kU8, 2, int64_t{3} << 20);
  large.Row<uint8_t>(1)[large.cols() - 1] = 7;
  EXPECT_EQ(large.Row<uint8_t>(1)[large.cols() - 1], 7);
}

// ---- schemes ----

TEST(SchemeTest, DequantizesByHand) {
  QuantizedLinear q;
  q.scheme.bits = 4;
  q.scheme.symmetric = false;
  q.scheme.group_size = 2;
  q.out = 2;
  q.in = 3;  // the second group holds one input
  q.codes = {-8, 7, 1, 0, 3, -4};
  q.scales = {0.5f, 2, 0.25f, 1};
  q.zero_points = {1, -1, 0, -4};
  EXPECT_EQ(q.groups(), 2);
  std::vector<float> weight(6);
  Dequantize(q, MutableViewOf(weight.data(), 2, 3));
  EXPECT_THAT(weight, testing::ElementsAre(-4.5f, 3, 4, 0, 0.75f, 0));
}

// The nearest of all numbers, ties to the even code, by trying each.
int8_t NearestByTrying(CodeType type, float x) {
  const int magnitudes = type == CodeType::kFp8 ? 0x7F : 8;  // 0x7F is NaN
  int best = 0;
  for (int code = 0; code < magnitudes; ++code) {
    const double distance = std::abs(std::abs(x) - NumberOf(type, static_cast<int8_t>(code)));
    const double least = std::abs(std::abs(x) - NumberOf(type, static_cast<int8_t>(best)));
    if (distance < least || (distance == least && code % 2 == 0)) best = code;
  }
  return static_cast<int8_t>(std::signbit(x) ? best + (type == CodeType::kFp8 ? 0x80 : 8) : best);
}

TEST(SchemeTest, FloatCodesAreTheNearestNumbers) {
  EXPECT_EQ(NumberOf(CodeType::kFp8, 0x7E), 448);
  EXPECT_EQ(NumberOf(CodeType::kFp8, 1), 0x1p-9f);
  EXPECT_EQ(NumberOf(CodeType::kFp8, static_cast<int8_t>(0xB8)), -1);
  EXPECT_TRUE(std::isnan(NumberOf(CodeType::kFp8, 0x7F)));
  EXPECT_EQ(NumberOf(CodeType::kFp4, 0xF), -6);
  Random random(5);
  for (const CodeType type : {CodeType::kFp8, CodeType::kFp4}) {
    const int codes = type == CodeType::kFp8 ? 0x7F : 8;
    for (int code = 0; code < codes; ++code) {
      const float number = NumberOf(type, static_cast<int8_t>(code));
      ASSERT_EQ(NearestCode(type, number), static_cast<int8_t>(code));
      const float next = code + 1 < codes ? NumberOf(type, static_cast<int8_t>(code + 1)) : number;
      const float tie = (number + next) / 2;
      for (const float x : {tie, std::nextafter(tie, 0.0f), std::nextafter(tie, 1e9f), -tie}) {
        ASSERT_EQ(NearestCode(type, x), NearestByTrying(type, x)) << x;
      }
    }
    for (int i = 0; i < 20000; ++i) {
      const auto x = static_cast<float>(random.Normal() * std::exp(4 * random.Normal()));
      ASSERT_EQ(NearestCode(type, x), NearestByTrying(type, x)) << x;
    }
    EXPECT_EQ(NumberOf(type, NearestCode(type, 1e9f)), type == CodeType::kFp8 ? 448 : 6);
  }
  for (float x = -140; x < 130; x += 0.25f) {
    const int8_t nearest = NearestCode(CodeType::kIq4Nl, x);
    const float distance = std::abs(NumberOf(CodeType::kIq4Nl, nearest) - x);
    for (int8_t code = 0; code < 16; ++code) {
      const float other = std::abs(NumberOf(CodeType::kIq4Nl, code) - x);
      // Ties go to the larger number.
      ASSERT_TRUE(distance < other || (distance == other && code <= nearest)) << x;
    }
  }
  EXPECT_EQ(RoundTo(DType::kF8E4M3, 17), 16);  // spacing 2, tie to even
  EXPECT_EQ(RoundTo(DType::kF8E8M0, 3), 4);
  EXPECT_EQ(RoundTo(DType::kF8E8M0, 2.9f), 2);
  EXPECT_EQ(FromE8M0(127), 1);
  EXPECT_EQ(FromE8M0(0), 0x1p-127f);
  EXPECT_TRUE(std::isnan(FromE8M0(ToE8M0(-1))));
}

TEST(SchemeTest, FloatCodesDequantizeWithTheGlobalScaleDividedFirst) {
  QuantizedLinear q;
  q.scheme = {
      .bits = 4, .group_size = 2, .scale_dtype = DType::kF8E4M3, .code_type = CodeType::kFp4};
  q.out = 1;
  q.in = 4;
  q.codes = {7, 0xA, 1, 0};  // 6, -1, 0.5, 0
  q.scales = {3, 0.5f};
  q.global_scale = 7;
  std::vector<float> weight(4);
  Dequantize(q, MutableViewOf(weight.data(), 1, 4));
  EXPECT_THAT(weight, testing::ElementsAre(6 * (3.0f / 7), -(3.0f / 7), 0.5f * (0.5f / 7), 0));
}

TEST(SchemeTest, DescriptionsAndSizes) {
  QuantScheme scheme;
  scheme.group_size = 64;
  EXPECT_EQ(Describe(scheme), "w4a16 g64 symmetric");
  EXPECT_DOUBLE_EQ(scheme.BitsPerWeight(10, 640), 4.25);
  scheme = {.bits = 8, .group_size = QuantScheme::kPerChannel};
  scheme.input.type = InputScheme::Type::kInt8;
  EXPECT_EQ(Describe(scheme), "w8a8 per channel symmetric, inputs int8 per token");
  scheme = {.bits = 8,
            .group_size = 128,
            .scale_dtype = DType::kBF16,
            .code_type = CodeType::kFp8,
            .row_block = 128};
  EXPECT_EQ(Describe(scheme), "fp8 blocks 128x128");
  EXPECT_DOUBLE_EQ(scheme.BitsPerWeight(256, 256), 8 + 16.0 / (128 * 128));
  scheme = {
      .bits = 4, .group_size = 16, .scale_dtype = DType::kF8E4M3, .code_type = CodeType::kFp4};
  EXPECT_EQ(Describe(scheme), "nvfp4 g16");
  scheme.input = {InputScheme::Type::kFp4, true, true, 16, DType::kF8E4M3};
  EXPECT_EQ(Describe(scheme), "nvfp4 g16, inputs nvfp4 per 16");
  EXPECT_DOUBLE_EQ(scheme.BitsPerWeight(1, 32), 4 + 16.0 / 32 + 1);
  EXPECT_EQ(scheme.half_range(), 6);
}

TEST(SchemeTest, PerChannelIsOneGroup) {
  QuantScheme scheme;
  scheme.group_size = QuantScheme::kPerChannel;
  EXPECT_EQ(scheme.GroupsFor(100), 1);
  EXPECT_EQ(scheme.GroupSizeFor(100), 100);
  EXPECT_EQ(scheme.GroupsFor(0), 0);
  EXPECT_EQ(scheme.min_code(), -8);
  EXPECT_EQ(scheme.max_code(), 7);
  EXPECT_EQ(Describe(scheme), "w4a16 per channel symmetric");
}

TEST(SchemeTest, InconsistentSizesAreBugs) {
  QuantizedLinear q;
  q.out = 1;
  q.in = 2;
  q.scheme.group_size = 2;
  q.codes = {1, 2};
  q.scales = {1};
  CheckConsistent(q);
  q.zero_points = {0};  // symmetric schemes have none
  EXPECT_DEATH(CheckConsistent(q), "zero points");
  q.zero_points.clear();
  q.scales.push_back(1);
  EXPECT_DEATH(CheckConsistent(q), "scales");
}

// ---- errors ----

TEST(ErrorTest, NamesTheCulprit) {
  const Error error(ErrorCode::kBadInput, "model.safetensors", "too short");
  EXPECT_STREQ(error.what(), "model.safetensors: too short");
  EXPECT_EQ(static_cast<int>(error.code()), 3);
  EXPECT_STREQ(Error(ErrorCode::kUsage, "", "no model").what(), "no model");
}

TEST(ErrorTest, CheckAborts) {
  Check(true, "fine");
  EXPECT_DEATH(Check(false, "broken promise"), "core_test.*broken promise");
}

// ---- threads ----

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEachTaskOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  for (const int64_t tasks : {0, 1, 2, 3, 64, 1000}) {
    std::vector<std::atomic<int>> counts(static_cast<size_t>(tasks));
    std::atomic<bool> thread_in_range{true};
    pool.ParallelFor(tasks, [&](int64_t i, int thread) {
      ++counts[static_cast<size_t>(i)];
      if (thread < 0 || thread >= GetParam()) thread_in_range = false;
    });
    for (const std::atomic<int>& count : counts) ASSERT_EQ(count, 1);
    EXPECT_TRUE(thread_in_range);
  }
}

TEST_P(ThreadPoolTest, ThreadsDoNotShareAnIndexAtATime) {
  ThreadPool pool(GetParam());
  std::vector<std::atomic<int>> inside(static_cast<size_t>(GetParam()));
  std::atomic<bool> shared{false};
  pool.ParallelFor(500, [&](int64_t, int thread) {
    if (inside[static_cast<size_t>(thread)].fetch_add(1) != 0) shared = true;
    inside[static_cast<size_t>(thread)].fetch_sub(1);
  });
  EXPECT_FALSE(shared);
}

TEST_P(ThreadPoolTest, RethrowsAndStaysUsable) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 3; ++round) {
    EXPECT_THROW(pool.ParallelFor(100,
                                  [](int64_t i, int) {
                                    if (i == 37) throw std::runtime_error("37");
                                  }),
                 std::runtime_error);
    std::atomic<int> ran{0};
    pool.ParallelFor(10, [&](int64_t, int) { ++ran; });
    EXPECT_EQ(ran, 10);
  }
}

TEST_P(ThreadPoolTest, NestingIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(
      {
        ThreadPool pool(GetParam());
        pool.ParallelFor(2, [&](int64_t, int) { pool.ParallelFor(1, [](int64_t, int) {}); });
      },
      "nested");
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8));

TEST(AvailableCpusTest, IsPositive) { EXPECT_GE(AvailableCpus(), 1); }

}  // namespace
}  // namespace quantmill::test
