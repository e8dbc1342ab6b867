#include "quant/pipeline/recipe.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "kernels/core/error.h"
#include "quant/pipeline/schemes.h"

namespace quantmill {
namespace {

TEST(Recipe, MethodNamesRoundTripAndShortFormsHaveTheirMeaning) {
  for (const std::string& name : MethodNames()) {
    const MethodChoice choice = MethodNamed(name, "--method");
    EXPECT_EQ(MethodNamed(NameOf(choice), "--method"), choice) << name;
  }
  EXPECT_EQ(NameOf(MethodNamed("awq", "")), "awq+rtn");
  EXPECT_EQ(NameOf(MethodNamed("smoothquant", "")), "smoothquant+gptq");
}

TEST(Recipe, UnknownMethodsListTheKnownOnes) {
  try {
    MethodNamed("gtpq", "--method");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_EQ(error.where(), "--method");
    EXPECT_NE(error.message().find("did you mean 'gptq'"), std::string::npos);
  }
}

TEST(Recipe, DefaultMethodsFitTheScheme) {
  const auto method_of = [](const char* scheme) {
    return NameOf(DefaultMethod(MakeScheme(ParseScheme(scheme, ""), "")));
  };
  EXPECT_EQ(method_of("w4a16"), "gptq");
  EXPECT_EQ(method_of("mxfp4"), "gptq");
  EXPECT_EQ(method_of("w8a8"), "smoothquant+gptq");
  EXPECT_EQ(method_of("w8a8-static"), "smoothquant+gptq");
  EXPECT_EQ(method_of("fp8"), "rtn");
  EXPECT_EQ(method_of("fp8-static"), "rtn");
}

TEST(Recipe, RoundingNeedsNoDataUnlessATextOrStaticInputsAskForIt) {
  Recipe recipe;
  EXPECT_TRUE(recipe.calibrated());
  recipe.method = Method::kRtn;
  EXPECT_FALSE(recipe.calibrated());
  recipe.calibration.text = "text.txt";
  EXPECT_TRUE(recipe.calibrated());
  recipe.calibration.text.clear();
  recipe.transform = Transform::kAwq;
  EXPECT_TRUE(recipe.calibrated());
  recipe.transform = Transform::kNone;
  recipe.rules.push_back({".*", MakeScheme({"fp8-static", {}, {}}, ""), ""});
  EXPECT_TRUE(recipe.calibrated());
  recipe.rules.back().scheme = MakeScheme({"fp8", {}, {}}, "");
  EXPECT_FALSE(recipe.calibrated());
}

TEST(Recipe, JsonHoldsWhatTheMethodUses) {
  Recipe recipe;
  recipe.calibration.seed = 3;
  recipe.rules.push_back({".*down_proj", std::nullopt, ""});
  const nlohmann::json json = RecipeJson(recipe);
  EXPECT_EQ(json.at("calibration").at("seed"), 3);
  EXPECT_EQ(json.at("rules").at(0).at("scheme"), "dense");
  recipe.method = Method::kRtn;
  EXPECT_FALSE(RecipeJson(recipe).contains("calibration"));
}

}  // namespace
}  // namespace quantmill
