#include "quant/report/units.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

TEST(UnitsTest, CountsHaveThousandsSeparators) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(-1234567), "-1,234,567");
  EXPECT_EQ(FormatCount(-123), "-123");
  EXPECT_EQ(FormatCount(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(UnitsTest, BytesKeepAboutThreeDigitsAndRoundIntoTheNextUnit) {
  EXPECT_EQ(FormatBytes(uint64_t{0}), "0 B");
  EXPECT_EQ(FormatBytes(uint64_t{999}), "999 B");
  EXPECT_EQ(FormatBytes(uint64_t{1000}), "1.00 kB");
  EXPECT_EQ(FormatBytes(uint64_t{113'200'000}), "113.2 MB");
  EXPECT_EQ(FormatBytes(uint64_t{999'960}), "1.00 MB");
  EXPECT_EQ(FormatBytes(int64_t{-2'500'000}), "-2.50 MB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<uint64_t>::max()), "18.4 EB");
  EXPECT_EQ(FormatBytes(std::numeric_limits<int64_t>::min()), "-9.22 EB");
}

TEST(UnitsTest, ParametersUseTheUnitsOfModelNames) {
  EXPECT_EQ(FormatParameters(512), "512");
  EXPECT_EQ(FormatParameters(3'672'320), "3.7 M");
  EXPECT_EQ(FormatParameters(1'100'048'384), "1.10 B");
}

TEST(UnitsTest, SecondsGrowIntoMinutesAndHours) {
  EXPECT_EQ(FormatSeconds(0.0031), "3.1 ms");
  EXPECT_EQ(FormatSeconds(0.42), "0.42 s");
  EXPECT_EQ(FormatSeconds(31.24), "31.2 s");
  EXPECT_EQ(FormatSeconds(125), "2 min 05 s");
  EXPECT_EQ(FormatSeconds(3725), "1 h 02 min");
  EXPECT_EQ(FormatClock(12.9), "0:12");
  EXPECT_EQ(FormatClock(3723), "1:02:03");
}

TEST(UnitsTest, WhatIsNoNumberSaysSo) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  EXPECT_EQ(FormatSeconds(nan), "nan");
  EXPECT_EQ(FormatClock(inf), "inf");
  EXPECT_EQ(FormatShare(nan), "nan");
  EXPECT_EQ(FormatNumber(-inf, 3), "-inf");
  EXPECT_EQ(FormatFixed(nan, 4), "nan");
}

TEST(UnitsTest, NumbersKeepSignificantDigits) {
  EXPECT_EQ(FormatNumber(0.0031234, 3), "0.00312");
  EXPECT_EQ(FormatNumber(0, 3), "0");
  EXPECT_EQ(FormatFixed(20.113, 4), "20.1130");
  EXPECT_EQ(FormatShare(0.9123), "91.2 %");
}

TEST(UnitsTest, ByteSizesTakeDecimalAndBinaryUnits) {
  EXPECT_EQ(ParseByteSize("1048576", "--x"), 1048576);
  EXPECT_EQ(ParseByteSize("2GiB", "--x"), int64_t{2} << 30);
  EXPECT_EQ(ParseByteSize("1.5 MB", "--x"), 1'500'000);
  EXPECT_EQ(ParseByteSize("512Mi", "--x"), int64_t{512} << 20);
}

TEST(UnitsTest, WrongByteSizesNameTheFlag) {
  for (const char* text : {"", "GiB", "2x", "-1", "0", "1e30", "nan", "inf", "2GiB2", "1e18GB"}) {
    try {
      ParseByteSize(text, "--max-host-mem");
      ADD_FAILURE() << "'" << text << "' was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_EQ(error.where(), "--max-host-mem");
    }
  }
}

}  // namespace
}  // namespace quantmill
