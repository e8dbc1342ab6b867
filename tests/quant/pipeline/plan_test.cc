// Plans of the sample model of calib_data (hidden 256, ffn 768, tied head). Tests run in the source
// root.
#include "quant/pipeline/plan.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "quant/pipeline/plan_report.h"
#include "quant/pipeline/schemes.h"

namespace quantmill {
namespace {

class PlanTest : public testing::Test {
 protected:
  static Rule MakeRule(const std::string& pattern, const std::string& scheme) {
    Rule rule{pattern, std::nullopt, "--rule"};
    if (scheme != "dense") rule.scheme = MakeScheme(ParseScheme(scheme, ""), "");
    return rule;
  }
  QuantizePlan Plan(std::vector<Rule> rules, const std::string& scheme = "w4a16:g64") {
    Recipe recipe;
    recipe.scheme = MakeScheme(ParseScheme(scheme, ""), "");
    recipe.rules = std::move(rules);
    return PlanModules(source_, recipe);
  }
  // The message of the usage error that planning ends with.
  std::string Refusal(std::vector<Rule> rules, const std::string& scheme = "w4a16:g64") {
    try {
      Plan(std::move(rules), scheme);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage) << error.what();
      return error.what();
    }
    return "no error";
  }

  ModelSource source_ = ModelSource::Open("calib_data/sample_model");
};

TEST_F(PlanTest, EveryLayerHasTheSchemeOfItsLastRule) {
  const QuantizePlan plan =
      Plan({MakeRule(".*down_proj", "w8a16"), MakeRule("model\\.layers\\.0\\.", "dense"),
            MakeRule(".*layers\\.0\\.mlp\\.down_proj", "w6a16:g64")});
  EXPECT_EQ(plan.Find("model.layers.1.mlp.down_proj")->scheme.bits, 8);
  EXPECT_EQ(plan.Find("model.layers.0.mlp.down_proj")->scheme.bits, 6);
  EXPECT_EQ(plan.Find("model.layers.0.self_attn.q_proj"), nullptr);
  EXPECT_EQ(plan.Find("model.layers.1.self_attn.q_proj")->scheme.bits, 4);
  EXPECT_EQ(plan.Find("lm_head"), nullptr);
  EXPECT_EQ(plan.dense.size(), 6u + 1u);
  EXPECT_EQ(plan.dense.back(), "lm_head");
  EXPECT_EQ(plan.modules.all().size() + 6, source_.spec().Linears().size());
  const DType dense = source_.dense_dtype();
  for (const QuantizedModule& module : plan.modules.all()) {
    EXPECT_EQ(module.scheme.scale_dtype, dense) << module.name;
  }
}

TEST_F(PlanTest, LayersThatServersFuseAreNamedWhenTheyDiffer) {
  const std::string refusal = Refusal({MakeRule(".*v_proj", "w8a16")});
  EXPECT_NE(refusal.find("model.layers.0.self_attn.q_proj would be w4a16:g64"), std::string::npos)
      << refusal;
  EXPECT_NE(refusal.find("model.layers.0.self_attn.v_proj w8a16:channel"), std::string::npos);
  EXPECT_NE(Refusal({MakeRule(".*layers\\.3\\.mlp\\.up_proj", "dense")})
                .find("model.layers.3.mlp.up_proj dense"),
            std::string::npos);
  EXPECT_NO_THROW(Plan({MakeRule(".*[qkv]_proj", "w8a16"), MakeRule(".*(gate|up)_proj", "dense")}));
}

TEST_F(PlanTest, WhatCannotBeIsRefused) {
  EXPECT_NE(Refusal({MakeRule(".*qproj", "w8a16")}).find("matches no layer"), std::string::npos);
  EXPECT_NE(Refusal({MakeRule("lm_head", "w8a16")}).find("matches no layer"), std::string::npos);
  EXPECT_NE(Refusal({MakeRule("", "dense")}).find("no layer to quantize"), std::string::npos);
  EXPECT_NE(Refusal({MakeRule(".*down_proj", "w4a16:g96"), MakeRule(".*o_proj", "w4a16:g96")})
                .find("o_proj (256 inputs)"),
            std::string::npos);
  Recipe recipe;
  recipe.scheme = MakeScheme({"w4a16", {}, {}}, "");
  recipe.quantize_head = true;
  EXPECT_THROW(PlanModules(source_, recipe), Error) << "tied";
  recipe.quantize_head = false;
  recipe.transform = Transform::kSmoothQuant;
  EXPECT_THROW(PlanModules(source_, recipe), Error) << "no rounded inputs";
}

TEST_F(PlanTest, LayersOfOneSchemeShareALine) {
  const auto lines = [&](std::vector<Rule> rules) {
    std::vector<std::string> names;
    for (const PlannedLayers& line : DescribePlan(source_, Plan(std::move(rules))).layers) {
      if (line.layers.ends_with("up_proj")) names.push_back(line.layers + " " + line.scheme);
    }
    return names;
  };
  using Names = std::vector<std::string>;
  EXPECT_EQ(lines({}), Names{"model.layers.*.mlp.up_proj w4a16:g64"});
  EXPECT_EQ(lines({MakeRule(".*layers\\.2\\..*(gate|up)_proj", "w8a16")}),
            (Names{"model.layers.{0-1,3}.mlp.up_proj w4a16:g64",
                   "model.layers.2.mlp.up_proj w8a16:channel"}));
}

TEST_F(PlanTest, ARotatedHeadIsNoLongerTied) {
  Recipe recipe;
  recipe.scheme.group_size = 64;
  recipe.quantize_head = true;
  recipe.rotate = true;
  EXPECT_NE(PlanModules(source_, recipe).Find("lm_head"), nullptr);
  const std::optional<Event> event = UntiedHead(source_, recipe);
  ASSERT_TRUE(event);
  EXPECT_NE(event->what.find("1.0 MB"), std::string::npos) << event->what;
  const ModelSource untied = ModelSource::Open("tests/quant/runtime/golden/llama_gqa");
  EXPECT_FALSE(UntiedHead(untied, recipe));
  recipe.rotate = false;
  EXPECT_FALSE(UntiedHead(source_, recipe));
}

TEST_F(PlanTest, AnUntiedHeadTakesEightBitsUnlessARuleSaysOtherwise) {
  const ModelSource untied = ModelSource::Open("tests/quant/runtime/golden/llama_gqa");
  ASSERT_FALSE(untied.spec().tied);
  Recipe recipe;
  recipe.scheme = MakeScheme(ParseScheme("w4a16:channel", ""), "");
  recipe.quantize_head = true;
  QuantizePlan plan = PlanModules(untied, recipe);
  ASSERT_NE(plan.Find("lm_head"), nullptr);
  EXPECT_EQ(SchemeText(plan.Find("lm_head")->scheme), "w8a16:channel");
  EXPECT_TRUE(plan.dense.empty());
  recipe.rules = {MakeRule("lm_head", "w6a16:channel")};
  plan = PlanModules(untied, recipe);
  EXPECT_EQ(plan.Find("lm_head")->scheme.bits, 6);
}

// 576 fills blocks of 32, but not of 256; 40 neither.
TEST(BlockFallbacks, AreToldOnceForEachWidth) {
  GgufLayout layout;
  const auto add = [&](const std::string& name, int64_t in, int64_t layer) {
    GgufMatrix& matrix = layout.matrices.emplace_back();
    matrix.linear.name = name;
    matrix.linear.out = 32;
    matrix.linear.in = in;
    matrix.layer = layer;
  };
  for (int64_t i = 0; i < 3; ++i) add("layer" + std::to_string(i), 576, i);
  add("wide", 512, 3);
  add("odd", 40, 3);
  QuantizePlan plan;
  plan.gguf = GgufPlan{layout, ChooseGgufTypes(layout, "q4_k", "")};
  const std::vector<Event> events = BlockFallbacks(plan);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].where, "odd");
  EXPECT_NE(events[0].what.find("rows of 40 do not fill blocks of 256 (Q4_K): F16"),
            std::string::npos)
      << events[0].what;
  EXPECT_EQ(events[1].where, "layer0");
  EXPECT_NE(events[1].what.find("Q5_0 instead"), std::string::npos) << events[1].what;
  EXPECT_NE(events[1].what.find("(3 layers)"), std::string::npos) << events[1].what;
  EXPECT_TRUE(BlockFallbacks(QuantizePlan()).empty());
}

}  // namespace
}  // namespace quantmill
