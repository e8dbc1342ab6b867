#include "quant/pipeline/same_values.h"

#include <gtest/gtest.h>

#include "formats/bitstream.h"
#include "formats/zero_points.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

QuantizedLinear Random4Bit(bool symmetric, Random& random) {
  QuantizedLinear linear;
  linear.scheme.symmetric = symmetric;
  linear.scheme.group_size = 8;
  linear.out = 3;
  linear.in = 20;  // the last group is ragged
  for (int64_t i = 0; i < linear.out * linear.in; ++i) {
    linear.codes.push_back(static_cast<int8_t>(random.Int(-8, 7)));
  }
  for (int64_t i = 0; i < linear.out * linear.groups(); ++i) {
    linear.scales.push_back((i % 2 == 0 ? 1.f : -1.f) * static_cast<float>(i + 1));
    if (!symmetric) linear.zero_points.push_back(static_cast<int8_t>(random.Int(-8, 7)));
  }
  return linear;
}

TEST(FindDifferentRow, SeesOneCodeOneScaleOneZeroPoint) {
  Random random(1);
  const QuantizedLinear linear = Random4Bit(false, random);
  EXPECT_FALSE(FindDifferentRow(linear, linear));
  for (size_t i = 0; i < linear.codes.size(); ++i) {
    QuantizedLinear other = linear;
    other.codes[i] = static_cast<int8_t>(other.codes[i] == 7 ? 6 : other.codes[i] + 1);
    EXPECT_EQ(FindDifferentRow(linear, other), static_cast<int64_t>(i) / 20);
  }
  for (size_t i = 0; i < linear.scales.size(); ++i) {
    QuantizedLinear other = linear;
    other.scales[i] *= -1;
    EXPECT_EQ(FindDifferentRow(other, linear), static_cast<int64_t>(i) / 3);
    other.scales[i] *= -2;
    EXPECT_EQ(FindDifferentRow(linear, other), static_cast<int64_t>(i) / 3);
    other = linear;
    other.zero_points[i] = static_cast<int8_t>(other.zero_points[i] ^ 1);
    EXPECT_EQ(FindDifferentRow(linear, other), static_cast<int64_t>(i) / 3);
  }
}

TEST(FindDifferentRow, KnowsTheSameValuesInOtherNumbers) {
  Random random(2);
  const QuantizedLinear linear = Random4Bit(true, random);
  QuantizedLinear other = linear;
  ToAsymmetric(other);  // mirrors the groups of negative scale
  EXPECT_FALSE(FindDifferentRow(linear, other));
  other.codes[25] = static_cast<int8_t>(other.codes[25] ^ 1);
  EXPECT_EQ(FindDifferentRow(linear, other), 1);
}

RowBand InWords(const QuantizedLinear& linear) {
  RowBand band;
  band.rows = linear;
  band.rows.codes.clear();
  const int64_t row_words = WordsPerRow(linear.in, linear.scheme.bits);
  band.memory.resize(static_cast<size_t>(linear.out * row_words * kWordBytes));
  PackCodes(linear.codes, linear.out, linear.in, linear.scheme.bits, band.memory);
  band.words = band.memory;
  return band;
}

RowBand InBytes(const QuantizedLinear& linear) {
  RowBand band;
  band.rows = linear;
  return band;
}

// Bands in words and in bytes: what differs is found, and the same values told in other numbers
// are the same.
TEST(FindDifferentRow, ComparesWordsWithWordsAndBytes) {
  Random random(3);
  const QuantizedLinear linear = Random4Bit(false, random);
  const auto find = [](const QuantizedLinear& a, const QuantizedLinear& b) {
    RowBand words_a = InWords(a);
    RowBand words_b = InWords(b);
    const std::optional<int64_t> row = FindDifferentRow(words_a, words_b);
    RowBand again_a = InWords(a);
    RowBand bytes_b = InBytes(b);
    EXPECT_EQ(FindDifferentRow(again_a, bytes_b), row);
    return row;
  };
  EXPECT_FALSE(find(linear, linear));
  for (size_t i = 0; i < linear.codes.size(); ++i) {
    QuantizedLinear other = linear;
    other.codes[i] = static_cast<int8_t>(other.codes[i] == 7 ? 6 : other.codes[i] + 1);
    EXPECT_EQ(find(linear, other), static_cast<int64_t>(i) / 20);
  }
  for (size_t i = 0; i < linear.scales.size(); ++i) {
    QuantizedLinear other = linear;
    other.scales[i] *= -2;
    EXPECT_EQ(find(linear, other), static_cast<int64_t>(i) / 3);
    other = linear;
    other.zero_points[i] = static_cast<int8_t>(other.zero_points[i] ^ 1);
    EXPECT_EQ(find(other, linear), static_cast<int64_t>(i) / 3);
  }
  const QuantizedLinear symmetric = Random4Bit(true, random);
  QuantizedLinear mirrored = symmetric;
  ToAsymmetric(mirrored);
  EXPECT_FALSE(find(symmetric, mirrored));
}

// Eight bits: differences that eight bits do not hold. Codes 127 and zero point -1 are 128 apart,
// as codes -128 and zero point 0 are with the scale mirrored.
TEST(FindDifferentRow, DifferencesOfCodesDoNotWrap) {
  QuantizedLinear a;
  a.scheme = {8, false, 1};
  a.out = 1;
  a.in = 1;
  a.codes = {127};
  a.zero_points = {-1};
  a.scales = {1};
  QuantizedLinear b = a;
  b.codes = {-128};
  b.zero_points = {0};
  EXPECT_EQ(FindDifferentRow(a, b), 0);
  b.scales = {-1};
  EXPECT_FALSE(FindDifferentRow(a, b));
}

// Groups of another size, and another type of codes: by the values themselves.
TEST(FindDifferentRow, MultipliesWhereGroupsDiffer) {
  QuantizedLinear wide;
  wide.scheme = {4, true, 2};
  wide.out = 1;
  wide.in = 2;
  wide.codes = {2, 4};
  wide.scales = {1};
  QuantizedLinear narrow = wide;
  narrow.scheme.group_size = 1;
  narrow.codes = {1, 2};
  narrow.scales = {2, 2};
  EXPECT_FALSE(FindDifferentRow(wide, narrow));
  narrow.scales = {2, 1};
  EXPECT_EQ(FindDifferentRow(wide, narrow), 0);
  QuantizedLinear floats = wide;
  floats.scheme.code_type = CodeType::kFp4;
  floats.codes = {4, 6};  // 2 and 4
  EXPECT_FALSE(FindDifferentRow(wide, floats));
  floats.codes = {4, 5};
  EXPECT_EQ(FindDifferentRow(wide, floats), 0);
  narrow.in = 1;
  EXPECT_EQ(FindDifferentRow(wide, narrow), 0);
}

}  // namespace
}  // namespace quantmill::test
