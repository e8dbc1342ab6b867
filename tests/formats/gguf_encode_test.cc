// Encoders: what they must get exactly right, their errors from both sides, importance.
#include <cmath>
#include <limits>

#include "formats/gguf/blocks.h"
#include "formats/gguf/codec.h"
#include "tests/formats/gguf_test_util.h"

namespace quantmill::test {
namespace {

constexpr size_t kRow = 512;

std::vector<std::byte> Encoded(GgmlType type, std::span<const float> x,
                               std::span<const float> importance = {}) {
  std::vector<std::byte> bytes(*RowBytes(type, static_cast<int64_t>(x.size())));
  EncodeRow(type, x, importance, bytes);
  return bytes;
}

std::vector<float> Decoded(GgmlType type, std::span<const std::byte> bytes, size_t count) {
  std::vector<float> values(count);
  DecodeRow(type, bytes, values);
  return values;
}

// Weighted squared error over the weighted squares of x.
double RelativeError(std::span<const float> x, std::span<const float> decoded,
                     std::span<const float> weights) {
  double error = 0;
  double total = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double w = weights.empty() ? 1.0 : double{weights[i]};
    error += w * (double{x[i]} - decoded[i]) * (double{x[i]} - decoded[i]);
    total += w * double{x[i]} * x[i];
  }
  return error / total;
}

std::vector<float> NormalRow(Random& random, size_t count, double scale = 1) {
  std::vector<float> row(count);
  for (float& value : row) value = static_cast<float>(scale * random.Normal());
  return row;
}

std::vector<float> RandomWeights(Random& random, size_t count) {
  std::vector<float> weights(count);
  for (float& weight : weights) weight = static_cast<float>(std::exp(1.5 * random.Normal()));
  return weights;
}

double MeanError(GgmlType type, bool weighted, double scale = 1) {
  Random random(9);
  double sum = 0;
  constexpr int kRows = 40;
  for (int i = 0; i < kRows; ++i) {
    const std::vector<float> x = NormalRow(random, kRow, scale);
    const std::vector<float> w = weighted ? RandomWeights(random, kRow) : std::vector<float>();
    sum += RelativeError(x, Decoded(type, Encoded(type, x, w), kRow), w);
  }
  return sum / kRows;
}

TEST(GgufEncode, PlainTypesRound) {
  const std::vector<float> x = {1.0f, -0.1f, 65504.0f, 1e-8f};
  EXPECT_EQ(Decoded(GgmlType::kF32, Encoded(GgmlType::kF32, x), 4), x);
  const auto half = Decoded(GgmlType::kF16, Encoded(GgmlType::kF16, x), 4);
  const auto brain = Decoded(GgmlType::kBf16, Encoded(GgmlType::kBf16, x), 4);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_EQ(half[i], ToFloat(ToF16(x[i])));
    EXPECT_EQ(brain[i], ToFloat(ToBF16(x[i])));
  }
}

TEST(GgufEncode, ZerosStayZero) {
  const std::vector<float> zeros(kRow, 0.0f);
  for (const GgmlType type : BlockTypes()) {
    for (const float value : Decoded(type, Encoded(type, zeros), kRow)) {
      EXPECT_EQ(value, 0.0f) << NameOf(type);
    }
  }
}

// Numbers that lie on a grid of the format are found exactly.
TEST(GgufEncode, GridIsExact) {
  const auto grid = [](int levels, float low) {
    std::vector<float> x(kRow);
    for (size_t i = 0; i < kRow; ++i) {
      x[i] = (static_cast<float>(i % static_cast<size_t>(levels)) + low) * 0.25f;
    }
    return x;
  };
  const auto expect_exact = [](GgmlType type, const std::vector<float>& x) {
    EXPECT_EQ(Decoded(type, Encoded(type, x), x.size()), x) << NameOf(type);
  };
  expect_exact(GgmlType::kQ4_0, grid(16, -8));
  expect_exact(GgmlType::kQ4_1, grid(16, 3));
  expect_exact(GgmlType::kQ5_0, grid(32, -16));
  expect_exact(GgmlType::kQ5_1, grid(32, -40));
  std::vector<float> x(kRow);
  for (size_t i = 0; i < kRow; ++i) x[i] = kMxfp4Levels[i % 16] * 0.125f;
  expect_exact(GgmlType::kMxfp4, x);
  for (size_t i = 0; i < kRow; ++i) x[i] = kIq4NlLevels[i % 16] * 0.125f;
  expect_exact(GgmlType::kIq4Nl, x);
  // d is a sixty-third of the step: F16 decides how near it comes.
  EXPECT_LT(RelativeError(grid(16, -8),
                          Decoded(GgmlType::kQ4K, Encoded(GgmlType::kQ4K, grid(16, -8)), kRow), {}),
            1e-6);
  EXPECT_LT(
      RelativeError(grid(32, -16),
                    Decoded(GgmlType::kQ5K, Encoded(GgmlType::kQ5K, grid(32, -16)), kRow), {}),
      1e-6);
}

// The relative error of normally distributed numbers, from both sides: "too good" is a bug of the
// test, too bad one of the encoder. ggml's own encoders, measured on such rows, are at 0.75% Q4_0,
// 0.61% Q4_1, 0.18% Q5_0, 0.14% Q5_1, 0.0029% Q8_0, 0.58% IQ4_NL, 1.31% MXFP4, 8.8% Q2_K, 2.3%
// Q3_K, 0.51% Q4_K, 0.131% Q5_K and 0.0319% Q6_K.
TEST(GgufEncode, ErrorOfNormalRows) {
  struct Limit {
    GgmlType type;
    double percent;
  };
  for (const Limit& limit : std::vector<Limit>{{GgmlType::kQ4_0, 0.669},
                                               {GgmlType::kQ4_1, 0.480},
                                               {GgmlType::kQ5_0, 0.162},
                                               {GgmlType::kQ5_1, 0.1138},
                                               {GgmlType::kQ8_0, 0.00224},
                                               {GgmlType::kIq4Nl, 0.543},
                                               {GgmlType::kMxfp4, 1.25},
                                               {GgmlType::kQ2K, 6.70},
                                               {GgmlType::kQ3K, 2.075},
                                               {GgmlType::kQ4K, 0.487},
                                               {GgmlType::kQ5K, 0.119},
                                               {GgmlType::kQ6K, 0.02705}}) {
    const double percent = 100 * MeanError(limit.type, false);
    EXPECT_NEAR(percent, limit.percent, 0.05 * limit.percent) << NameOf(limit.type);
    // The scale does not matter, until F16 runs out of bits.
    const double small = 100 * MeanError(limit.type, false, 1.0 / 64);
    EXPECT_NEAR(small, limit.percent, 0.05 * limit.percent) << NameOf(limit.type);
  }
}

// A plain encoder of blocks of 32: the range of the block, rounded. In double, F16 not counted.
double SimpleError(std::span<const float> x, int max_code, bool centered) {
  double error = 0;
  for (size_t b = 0; b < x.size(); b += 32) {
    double low = x[b];
    double high = x[b];
    for (size_t i = b; i < b + 32; ++i) {
      low = std::min(low, double{x[i]});
      high = std::max(high, double{x[i]});
    }
    if (centered) {
      high = std::max(-low, high);
      low = -high;
    }
    const double step = (high - low) / max_code;
    for (size_t i = b; i < b + 32; ++i) {
      const double value = low + std::round((x[i] - low) / step) * step;
      error += (x[i] - value) * (x[i] - value);
    }
  }
  return error;
}

TEST(GgufEncode, NoBlockIsWorseThanASimpleEncoder) {
  Random random(10);
  for (int trial = 0; trial < 200; ++trial) {
    // Heavy tails and offsets too.
    std::vector<float> x = NormalRow(random, 32);
    for (float& value : x) {
      if (trial % 3 == 1) value = value * value * value;
      if (trial % 3 == 2) value += 3;
    }
    const auto error = [&](GgmlType type) {
      const std::vector<float> values = Decoded(type, Encoded(type, x), x.size());
      double sum = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        sum += (double{x[i]} - values[i]) * (double{x[i]} - values[i]);
      }
      return sum;
    };
    EXPECT_LE(error(GgmlType::kQ4_0), 1.01 * SimpleError(x, 14, true)) << trial;
    EXPECT_LE(error(GgmlType::kQ5_0), 1.01 * SimpleError(x, 30, true)) << trial;
    EXPECT_LE(error(GgmlType::kQ8_0), 1.01 * SimpleError(x, 254, true)) << trial;
    EXPECT_LE(error(GgmlType::kQ4_1), 1.01 * SimpleError(x, 15, false)) << trial;
    EXPECT_LE(error(GgmlType::kQ5_1), 1.01 * SimpleError(x, 31, false)) << trial;
  }
}

TEST(GgufEncode, ImportanceLowersTheWeightedError) {
  Random random(11);
  for (const GgmlType type : BlockTypes()) {
    double blind = 0;
    double weighted = 0;
    for (int i = 0; i < 20; ++i) {
      const std::vector<float> x = NormalRow(random, kRow);
      const std::vector<float> w = RandomWeights(random, kRow);
      blind += RelativeError(x, Decoded(type, Encoded(type, x), kRow), w);
      weighted += RelativeError(x, Decoded(type, Encoded(type, x, w), kRow), w);
    }
    EXPECT_LT(weighted, 0.99 * blind) << NameOf(type);
  }
}

TEST(GgufEncode, OnlyRatiosOfWeightsMatter) {
  Random random(12);
  const std::vector<float> x = NormalRow(random, kRow);
  const std::vector<float> w = RandomWeights(random, kRow);
  std::vector<float> scaled = w;
  for (float& weight : scaled) weight *= 0x1p-60f;
  const std::vector<float> ones(kRow, 1.0f);
  const std::vector<float> zeros(kRow, 0.0f);
  for (const GgmlType type : BlockTypes()) {
    EXPECT_EQ(Encoded(type, x, w), Encoded(type, x, scaled)) << NameOf(type);
    EXPECT_EQ(Encoded(type, x, ones), Encoded(type, x)) << NameOf(type);
    EXPECT_EQ(Encoded(type, x, zeros), Encoded(type, x)) << NameOf(type);
  }
}

// One element alone, huge, tiny and constant rows, weight on few elements: all decode to something
// finite and near.
TEST(GgufEncode, AwkwardRows) {
  Random random(13);
  std::vector<std::vector<float>> rows(8, std::vector<float>(kRow, 0.0f));
  rows[0][77] = 3;
  for (float& value : rows[1]) value = 2.5f;
  for (float& value : rows[2]) value = -2.5f;
  rows[3] = NormalRow(random, kRow, 1e-3);
  rows[4] = NormalRow(random, kRow, 1000);
  for (size_t i = 0; i < kRow; ++i) rows[5][i] = i % 2 == 0 ? 1.0f : -1.0f;
  rows[6] = NormalRow(random, kRow);
  for (float& value : rows[6]) value = std::fabs(value);
  rows[7] = NormalRow(random, kRow);
  rows[7][100] = 300;  // an outlier
  std::vector<float> sparse(kRow, 0.0f);
  for (size_t i = 0; i < kRow; i += 50) sparse[i] = 1;
  for (const GgmlType type : BlockTypes()) {
    for (size_t r = 0; r < rows.size(); ++r) {
      const std::vector<float> values = Decoded(type, Encoded(type, rows[r]), kRow);
      EXPECT_LT(RelativeError(rows[r], values, {}), 0.12) << NameOf(type) << " row " << r;
      const std::vector<float> few = Decoded(type, Encoded(type, rows[r], sparse), kRow);
      for (const float value : few) EXPECT_TRUE(std::isfinite(value)) << NameOf(type);
    }
  }
}

TEST(GgufEncode, ExtremeMagnitudes) {
  Random random(14);
  for (const double scale : {1e37, 1e6, 1e-6, 1e-9, 1e-30, 1e-42}) {
    const std::vector<float> x = NormalRow(random, kRow, scale);
    for (const GgmlType type : BlockTypes()) {
      const std::vector<float> values = Decoded(type, Encoded(type, x), kRow);
      for (size_t i = 0; i < kRow; ++i) {
        ASSERT_TRUE(std::isfinite(values[i])) << NameOf(type) << " " << scale;
        // Saturated or lost, but never turned around or made larger.
        EXPECT_LE(std::fabs(values[i] - x[i]), 2.0 * std::fabs(x[i]) + 2 * scale)
            << NameOf(type) << " " << scale;
      }
    }
  }
}

TEST(GgufEncodeDeathTest, CallersErrors) {
  std::vector<float> x(32, 1.0f);
  std::vector<float> w(32, 1.0f);
  x[5] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_DEATH(Encoded(GgmlType::kQ4_0, x), "only finite");
  x[5] = std::numeric_limits<float>::infinity();
  EXPECT_DEATH(Encoded(GgmlType::kBf16, x), "only finite");
  x[5] = 0;
  w[3] = -1;
  EXPECT_DEATH(Encoded(GgmlType::kQ4_0, x, w), "not negative");
  w.resize(31);
  EXPECT_DEATH(Encoded(GgmlType::kQ4_0, x, w), "one weight");
}

}  // namespace
}  // namespace quantmill::test
