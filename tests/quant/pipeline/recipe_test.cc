#include "quant/pipeline/recipe.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

TEST(Recipe, NamesRoundTrip) {
  for (const Method method : {Method::kRtn, Method::kGptq}) {
    EXPECT_EQ(MethodNamed(NameOf(method)), method);
  }
  EXPECT_EQ(BitsOfScheme("w4a16"), 4);
  EXPECT_EQ(BitsOfScheme("w8a16"), 8);
}

TEST(Recipe, UnknownNamesListTheKnownOnes) {
  try {
    MethodNamed("gtpq");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_NE(error.message().find("gptq"), std::string::npos);
  }
  EXPECT_THROW(BitsOfScheme("w5a16"), Error);
}

TEST(Recipe, JsonHoldsWhatTheMethodUses) {
  Recipe recipe;
  recipe.calibration.seed = 3;
  EXPECT_EQ(RecipeJson(recipe).at("calibration").at("seed"), 3);
  recipe.method = Method::kRtn;
  EXPECT_FALSE(RecipeJson(recipe).contains("calibration"));
}

}  // namespace
}  // namespace quantmill
