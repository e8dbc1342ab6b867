#include "tools/flags.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

TEST(FlagsTest, NearestNameForgivesAThirdOfTheLetters) {
  const std::vector<std::string> names = {"gptq", "rtn", "compressed-tensors"};
  EXPECT_EQ(NearestName("gptqq", names), "gptq");
  EXPECT_EQ(NearestName("gtpq", names), "gptq");  // swapped neighbours
  EXPECT_EQ(NearestName("rt", names), "rtn");
  EXPECT_EQ(NearestName("compresed_tensors", names), "compressed-tensors");
  EXPECT_EQ(NearestName("awq", names), "");
  EXPECT_EQ(NearestName("", names), "");
  EXPECT_EQ(NearestName("gptq", {}), "");
}

TEST(FlagsTest, ByteSizesTakeDecimalAndBinaryUnits) {
  EXPECT_EQ(ParseByteSize("1048576", "--x"), 1048576);
  EXPECT_EQ(ParseByteSize("2GiB", "--x"), int64_t{2} << 30);
  EXPECT_EQ(ParseByteSize("1.5 MB", "--x"), 1'500'000);
  EXPECT_EQ(ParseByteSize("512Mi", "--x"), int64_t{512} << 20);
}

TEST(FlagsTest, WrongByteSizesNameTheFlag) {
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
