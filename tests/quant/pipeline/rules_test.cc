#include "quant/pipeline/rules.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

const std::vector<std::string> kModules = {"model.layers.0.self_attn.q_proj",
                                           "model.layers.0.mlp.down_proj",
                                           "model.layers.10.mlp.down_proj", "lm_head"};

Rule RuleOf(const std::string& pattern) { return {pattern, std::nullopt, "--rule"}; }

TEST(Rules, TheLastMatchWinsFromTheStartOfTheName) {
  const std::vector<Rule> rules = {RuleOf("model"), RuleOf(".*down_proj"),
                                   RuleOf("model\\.layers\\.10\\.|nothing")};
  RuleMatcher matcher(rules);
  EXPECT_EQ(matcher.Match(kModules[0]), &rules[0]);
  EXPECT_EQ(matcher.Match(kModules[1]), &rules[1]);
  EXPECT_EQ(matcher.Match(kModules[2]), &rules[2]);
  EXPECT_EQ(matcher.Match(kModules[3]), nullptr);
  EXPECT_EQ(matcher.Match("x.model"), nullptr);
  EXPECT_NO_THROW(matcher.RequireAllMatched(kModules));
}

std::string UnmatchedMessage(const std::string& pattern) {
  const std::vector<Rule> rules = {RuleOf(pattern)};
  RuleMatcher matcher(rules);
  for (const std::string& module : kModules) EXPECT_EQ(matcher.Match(module), nullptr) << module;
  try {
    matcher.RequireAllMatched(kModules);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_EQ(error.where(), "--rule");
    return error.message();
  }
  return "no error";
}

TEST(Rules, ARuleThatMatchesNothingNamesTheNearestLayer) {
  EXPECT_NE(UnmatchedMessage("q_proj").find("nearest is 'model.layers.0.self_attn.q_proj'"),
            std::string::npos);
  EXPECT_NE(UnmatchedMessage(".*\\.dwn_proj").find("'model.layers.0.mlp.down_proj'"),
            std::string::npos);
  EXPECT_NE(UnmatchedMessage("model\\.layers\\.10\\.mlp\\.downproj")
                .find("'model.layers.10.mlp.down_proj'"),
            std::string::npos);
  EXPECT_NE(UnmatchedMessage("zzz").find("first one is called"), std::string::npos);
}

TEST(Rules, BadPatternsNameTheirPlace) {
  for (const char* pattern : {"(", "a)(b", "[", "*", "a{2,1}", "(?P<", "\\", "\xff"}) {
    const std::vector<Rule> rules = {RuleOf(pattern)};
    try {
      RuleMatcher matcher(rules);
      ADD_FAILURE() << pattern << " was taken";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_EQ(error.where(), "--rule");
    }
  }
}

}  // namespace
}  // namespace quantmill
