#include "quant/pipeline/budget.h"

#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "quant/pipeline/schemes.h"

namespace quantmill {
namespace {

// Two groups of 100 weights, the first ten times as sensitive, and 100 weights fixed at 5 bits.
Sensitivity Sample() {
  Sensitivity s;
  s.candidates =
      CandidatesFor(MakeScheme(ParseScheme("w4a16:channel", ""), ""), ServingTarget::Stack::kNone);
  s.family_scales = {10, 1};
  s.fixed_weights = 100;
  s.fixed_bits = 500;
  for (size_t g = 0; g < 2; ++g) {
    LayerGroup group;
    group.name = "model.layers." + std::to_string(g) + ".mlp.(gate_proj|up_proj)";
    group.family = g;
    group.weights = 100;
    for (const QuantScheme& scheme : s.candidates) {
      group.bits.push_back(100 * scheme.bits);
      group.errors.push_back(1.0 / static_cast<double>(1 << (2 * scheme.bits)));
    }
    s.groups.push_back(group);
  }
  return s;
}

TEST(Budget, TextsRoundTrip) {
  for (const char* text :
       {"4.5bits", "3bits", "kl<=0.05", "perplexity<=+1%", "perplexity<=+0.5%"}) {
    EXPECT_EQ(BudgetText(ParseBudget(text, "")), text);
  }
  EXPECT_EQ(ParseBudget("perplexity<=+1%", "").limit, 0.01);
  for (const char* text :
       {"", "bits", "4.5", "4.5 bits", "-1bits", "0bits", "nanbits", "kl<=", "kl", "kl<=x",
        "kl<0.1", "kl<=0", "perplexity<=1%", "perplexity<=+%", "infbits", "1e9bits"}) {
    EXPECT_THROW(ParseBudget(text, "--budget"), Error) << text;
  }
}

TEST(Budget, SensitiveLayersGetTheBits) {
  const Sensitivity s = Sample();
  // 12 bits over two groups beside the fixed 5: 10/4^a + 1/4^b, a + b <= 8, is least at 5 and 3
  // (0.0254; 4 and 4: 0.043, 6 and 2: 0.065).
  const BitAllocation allocation = AllocateBits(s, 13.0 / 3);
  EXPECT_EQ(s.candidates[allocation.candidates[0]].bits, 5);
  EXPECT_EQ(s.candidates[allocation.candidates[1]].bits, 3);
  EXPECT_DOUBLE_EQ(allocation.average_bits, 13.0 / 3);
  EXPECT_DOUBLE_EQ(allocation.predicted_kl, 10.0 / 1024 + 1.0 / 64);
}

TEST(Budget, TheLeastIsNamedWhereNothingFits) {
  try {
    AllocateBits(Sample(), 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_NE(error.message().find("3 is the least"), std::string::npos) << error.what();
  }
  EXPECT_NO_THROW(AllocateBits(Sample(), 3));
}

// What a plan is refused by, and what is measured later, are of the same bits.
TEST(Budget, TheLeastNeedsNoMeasuring) {
  Sensitivity counted = Sample();
  for (LayerGroup& group : counted.groups) group.errors.assign(group.errors.size(), 0);
  EXPECT_NO_THROW(CheckBits(counted, 3));
  EXPECT_THROW(CheckBits(counted, 2.9), Error);
}

TEST(Budget, BitsForADivergenceAreTheFewest) {
  const Sensitivity s = Sample();
  const double bits = BitsForDivergence(s, 0.03);
  EXPECT_LE(AllocateBits(s, bits).predicted_kl, 0.03);
  EXPECT_GT(AllocateBits(s, bits - 0.34).predicted_kl, 0.03);
  EXPECT_NEAR(BitsForDivergence(s, 0), 7, 0.002) << "never reached: the most there are";
  EXPECT_EQ(BitsForDivergence(s, 100), 3);
}

TEST(Budget, TheChoiceBecomesRulesThatNameLayersExactly) {
  const Sensitivity s = Sample();
  Recipe recipe;
  recipe.scheme = s.candidates[2];
  recipe.budget = Budget{Budget::Kind::kBits, 4};
  const Recipe mixed = Allocated(recipe, s, {{2, 4}, 0, 0});
  EXPECT_FALSE(mixed.budget.has_value());
  ASSERT_TRUE(mixed.chosen_for.has_value());
  EXPECT_EQ(mixed.chosen_for->asked, "4bits");
  EXPECT_EQ(mixed.chosen_for->limit, 4);
  EXPECT_FALSE(mixed.chosen_for->measured.has_value()) << "bits are counted";
  ASSERT_EQ(mixed.rules.size(), 1u) << "the first has the recipe's own scheme";
  EXPECT_EQ(mixed.rules[0].scheme->bits, 6);
  RuleMatcher matcher(mixed.rules);
  EXPECT_NE(matcher.Match("model.layers.1.mlp.up_proj"), nullptr);
  EXPECT_EQ(matcher.Match("model.layers.10.mlp.up_proj"), nullptr);
  EXPECT_EQ(matcher.Match("model.layers.1.mlp.down_proj"), nullptr);
}

// 80 blocks; a depth has four streams of 512 tokens: 64 MiB in all.
TEST(Sensitivity, ProbesFitTheMemory) {
  DecoderSpec spec;
  spec.hidden = 8192;
  spec.blocks.resize(80);
  constexpr int64_t kDepth = int64_t{64} << 20;
  EXPECT_EQ(ProbeDepths(spec, 512, 0), 32u);
  EXPECT_EQ(ProbeDepths(spec, 512, 4 * 10 * kDepth), 10u);
  EXPECT_EQ(ProbeDepths(spec, 512, 4 * 10 * kDepth - 1), 9u);
  EXPECT_EQ(ProbeDepths(spec, 512, 1), 1u);
  spec.blocks.resize(3);
  EXPECT_EQ(ProbeDepths(spec, 512, 0), 3u);
}

}  // namespace
}  // namespace quantmill
