#include "quant/report/spelling.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace quantmill {
namespace {

TEST(SpellingTest, NearestNameForgivesAThirdOfTheLetters) {
  const std::vector<std::string> names = {"gptq", "rtn", "compressed-tensors"};
  EXPECT_EQ(NearestName("gptqq", names), "gptq");
  EXPECT_EQ(NearestName("gtpq", names), "gptq");  // swapped neighbours
  EXPECT_EQ(NearestName("rt", names), "rtn");
  EXPECT_EQ(NearestName("compresed_tensors", names), "compressed-tensors");
  EXPECT_EQ(NearestName("awq", names), "");
  EXPECT_EQ(NearestName("", names), "");
  EXPECT_EQ(NearestName("gptq", {}), "");
}

}  // namespace
}  // namespace quantmill
