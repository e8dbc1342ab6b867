#include "quant/pipeline/recipe_file.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/core/error.h"
#include "quant/pipeline/recipe_presets.h"
#include "quant/pipeline/schemes.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

// Everything that a recipe can say.
constexpr const char* kFull = R"(# a comment
include: [w4a16-gptq, w8a16]
scheme: w3a16
group_size: 64
asymmetric: true
method: awq+gptq
effort: fast
rules:
  - match: '.*down_proj'
    scheme: w5a16
  - {match: "model\\.layers\\.0\\.", scheme: dense}
rotate: true
quantize_head: true
format: compressed-tensors
act_order: false
damp_percent: 0.02
calib: some text.txt
samples: 64
sequence_length: 256
calib_seed: 7
held_out: 5
compute: f32
max_host_mem: 2GiB
max_gpu_mem: 8GB
max_fallbacks: 3
)";

Recipe Resolved(const std::string& yaml) { return ResolveRecipe(ParseRecipe(yaml, "r.yaml")); }

TEST(RecipeFile, EveryKeyIsTaken) {
  const Recipe recipe = Resolved(kFull);
  EXPECT_EQ(SchemeText(recipe.scheme), "w3a16:g64:asym");
  EXPECT_EQ(NameOf(recipe.method_choice()), "awq+gptq");
  EXPECT_EQ(recipe.effort, Effort::kFast);
  ASSERT_EQ(recipe.rules.size(), 2u);
  EXPECT_EQ(recipe.rules[0].pattern, ".*down_proj");
  EXPECT_EQ(SchemeText(*recipe.rules[0].scheme), "w5a16:g64:asym") << "as the recipe's own";
  EXPECT_EQ(recipe.rules[1].pattern, "model\\.layers\\.0\\.");
  EXPECT_FALSE(recipe.rules[1].scheme.has_value());
  EXPECT_TRUE(recipe.rotate);
  EXPECT_TRUE(recipe.quantize_head);
  EXPECT_FALSE(recipe.act_order);
  EXPECT_EQ(recipe.damp_percent, 0.02);
  EXPECT_EQ(recipe.calibration.text, "some text.txt");
  EXPECT_EQ(recipe.calibration.samples, 64);
  EXPECT_EQ(recipe.calibration.sequence_length, 256);
  EXPECT_EQ(recipe.calibration.seed, 7u);
  EXPECT_EQ(recipe.calibration.held_out, 5);
  EXPECT_EQ(recipe.compute, Compute::kF32);
  EXPECT_EQ(recipe.max_host_mem, int64_t{2} << 30);
  EXPECT_EQ(recipe.max_gpu_mem, 8'000'000'000);
  EXPECT_EQ(recipe.max_fallbacks, 3);
}

// As a command that failed leaves its output.
TEST(RecipeFile, AnEmptyOneIsRefused) {
  for (const char* yaml : {"", "\n", "# nothing\n", "---\n"}) {
    EXPECT_THROW(Resolved(yaml), Error) << yaml;
  }
  EXPECT_EQ(RecipeYaml(Resolved("{}"), ""), RecipeYaml(ResolveRecipe({}), ""));
}

TEST(RecipeFile, TheResolvedRecipeResolvesToItself) {
  for (const Preset& preset : Presets()) {
    const Recipe recipe = Resolved(std::string(preset.yaml));
    const std::string yaml = RecipeYaml(recipe, "made by a test");
    EXPECT_EQ(RecipeYaml(Resolved(yaml), "made by a test"), yaml) << preset.name;
    EXPECT_EQ(RecipeJson(Resolved(yaml)), RecipeJson(recipe)) << preset.name;
  }
  Recipe recipe = Resolved(kFull);
  recipe.rules.push_back({"a: '\"#{}[],&*!|>%@`\\d\t\n", std::nullopt, ""});
  recipe.calibration.text = "- odd: #name\n'\"";
  const Recipe again = Resolved(RecipeYaml(recipe, ""));
  EXPECT_EQ(again.rules.back().pattern, recipe.rules.back().pattern);
  EXPECT_EQ(again.calibration.text, recipe.calibration.text);
  EXPECT_EQ(RecipeJson(again), RecipeJson(recipe));
}

TEST(RecipeFile, LaterKeysOverrideAndRulesAddUp) {
  RecipeDraft draft = ParseRecipe("include: w4a16-awq\nrules: [{match: a, scheme: w8a16}]\n", "r");
  Override(draft, ParseRecipe("method: gptq\nrules: [{match: b, scheme: dense}]\n", "s"));
  Recipe recipe = ResolveRecipe(draft);
  EXPECT_EQ(SchemeText(recipe.scheme), "w4a16:g128:asym");
  EXPECT_EQ(NameOf(recipe.method_choice()), "gptq");
  ASSERT_EQ(recipe.rules.size(), 2u);
  EXPECT_EQ(recipe.rules[1].pattern, "b");
  // Zero points were chosen for w4a16, and FP8 has none.
  Override(draft, ParseRecipe("scheme: fp8\n", "t"));
  EXPECT_EQ(SchemeText(ResolveRecipe(draft).scheme), "fp8");
}

std::string Refusal(const std::string& yaml) {
  try {
    Resolved(yaml);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage) << yaml;
    return error.what();
  }
  return "taken";
}

TEST(RecipeFile, ErrorsNameTheLineAndTheNearestKey) {
  EXPECT_EQ(Refusal("scheme: w4a16\nmetod: gptq\n"),
            "r.yaml:2: unknown key 'metod'; did you mean 'method'?");
  EXPECT_NE(Refusal("zzzzz: 1\n").find("known ones: include, scheme"), std::string::npos);
  EXPECT_EQ(Refusal("samples: 3\n\nsamples: 4\n"), "r.yaml:3: key 'samples' is given twice");
  EXPECT_EQ(Refusal("samples: many\n"), "r.yaml:1: samples: 'many' is not a whole number");
  EXPECT_EQ(Refusal("rules:\n  - match: a\n    shceme: w8a16\n"),
            "r.yaml:3: rules: unknown key 'shceme'; did you mean 'scheme'?");
  EXPECT_NE(Refusal("\n\nscheme: w4a61").find("r.yaml:3: scheme: 'w4a61' is not one of"),
            std::string::npos);
  EXPECT_NE(Refusal("scheme: fp8\ngroup_size: 64\n").find("r.yaml:2: group_size: fp8 has no"),
            std::string::npos);
  EXPECT_NE(Refusal("scheme: mxfp4\nasymmetric: true\n").find("r.yaml:2: asymmetric: mxfp4 has no"),
            std::string::npos);
  EXPECT_NE(Refusal("include: w4a16-gtpq\n").find("did you mean 'w4a16-gptq'"), std::string::npos);
}

TEST(RecipeFile, WrongTypesAndValuesAreRefused) {
  for (const char* yaml : {"[]",
                           "word",
                           "1",
                           "scheme: []",
                           "scheme: {}",
                           "scheme:",
                           "scheme: ''",
                           "asymmetric: 1",
                           "asymmetric: yes",
                           "samples: 1.5",
                           "samples: 0",
                           "samples: -1",
                           "samples: 010x",
                           "samples: 99999999999999999999",
                           "samples: []",
                           "sequence_length: 1",
                           "calib_seed: -1",
                           "damp_percent: nan",
                           "damp_percent: 2",
                           "damp_percent: x",
                           "effort: bets",
                           "kv_scheme: int8",
                           "rotate: 1",
                           "smoothing_alpha: 0.5",
                           "scheme: w8a8\nsmoothing_alpha: 1.5",
                           "compute: f16",
                           "max_host_mem: 2x",
                           "max_gpu_mem: 2x",
                           "max_fallbacks: -1",
                           "format: gguf2",
                           "method: gtpq",
                           "rules: a",
                           "rules: {}",
                           "rules: [a]",
                           "rules: [[]]",
                           "rules: [{}]",
                           "rules: [{match: a}]",
                           "rules: [{scheme: w4a16}]",
                           "rules: [{match: [], scheme: w4a16}]",
                           "rules: [{match: a, scheme: w4a61}]",
                           "rules: [{match: a, match: b, scheme: dense}]",
                           "include: []x",
                           "include: {}",
                           "include: [[]]",
                           "include: nothing.yaml",
                           "? [a]\n: b",
                           "a: b\n---\nc: d",
                           "scheme: *x",
                           "\"\\q\"",
                           "\t- a",
                           "<<: {scheme: w4a16}",
                           "group_size: channels",
                           "group_size: 0"}) {
    EXPECT_NE(Refusal(yaml), "taken") << yaml;
  }
}

TEST(RecipeFile, EveryTruncationIsARecipeOrAnError) {
  const std::string full = kFull;
  for (size_t n = 0; n <= full.size(); ++n) {
    const std::string cut(full.data(), n);
    try {
      Resolved(cut);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage) << n << ": " << error.what();
    }
  }
}

TEST(RecipeFile, DamagedRecipesNeverEndInAnythingButAnError) {
  const std::string full = kFull;
  const std::string bytes = "{}[]:,'\"&*!|>%@`#-? \n\t\\0a\x80\xff";
  int taken = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Random random(seed);
    std::string damaged = full;
    for (int i = 0; i < 3; ++i) {
      damaged[random.Bits() % damaged.size()] = bytes[random.Bits() % bytes.size()];
    }
    try {
      Resolved(damaged);
      ++taken;
    } catch (const Error&) {
    }
  }
  EXPECT_GT(taken, 0);
  EXPECT_LT(taken, 2000);
  EXPECT_NE(Refusal(std::string(100'000, '[')), "taken") << "depth";
  EXPECT_NE(Refusal("rules: &a [*a]"), "taken") << "an anchor that holds itself";
}

class RecipeFolder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / "recipe_folder";
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_ / "inner");
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ / name) << text;
    return (folder_ / name).string();
  }
  static std::string RefusalOf(const std::string& path) {
    try {
      LoadRecipe(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "taken";
  }

  std::filesystem::path folder_;
};

TEST_F(RecipeFolder, IncludesAreFoundBesideTheFileThatNamesThem) {
  Write("inner/base.yaml", "include: more.yaml\nsamples: 5\n");
  Write("inner/more.yaml", "samples: 4\nsequence_length: 77\nscheme: w8a16\n");
  const std::string top = Write("top.yaml", "samples: 6\ninclude: inner/base.yaml\n");
  const Recipe recipe = ResolveRecipe(LoadRecipe(top));
  EXPECT_EQ(recipe.calibration.samples, 6) << "what a file includes comes before its own keys";
  EXPECT_EQ(recipe.calibration.sequence_length, 77);
  EXPECT_EQ(recipe.scheme.bits, 8);
}

TEST_F(RecipeFolder, CirclesAndFloodsOfIncludesAreRefused) {
  Write("a.yaml", "include: b.yaml\n");
  Write("b.yaml", "include: ./a.yaml\n");
  EXPECT_NE(RefusalOf((folder_ / "a.yaml").string()).find("includes itself"), std::string::npos);
  for (int level = 0; level < 3; ++level) {
    std::string text = "include: [";
    for (int i = 0; i < 10; ++i)
      text += level == 0 ? "w8a16," : "l" + std::to_string(level - 1) + ",";
    Write("l" + std::to_string(level), text + "]\n");
  }
  EXPECT_NE(RefusalOf((folder_ / "l2").string()).find("more than 100 includes"), std::string::npos);
}

TEST_F(RecipeFolder, AFileThatIsNoRecipeIsRefusedUnread) {
  std::ofstream(folder_ / "big.yaml").close();
  std::filesystem::resize_file(folder_ / "big.yaml", 100 << 20);
  EXPECT_NE(RefusalOf((folder_ / "big.yaml").string()), "taken");
  EXPECT_NE(RefusalOf(folder_.string()), "taken") << "a folder";
  EXPECT_NE(RefusalOf((folder_ / "none.yaml").string()), "taken");
  EXPECT_NE(RefusalOf(Write("zeros.yaml", std::string(100, '\0'))), "taken");
}

TEST(RecipePresets, EachResolvesAndHasASummaryThatFitsALine) {
  for (const Preset& preset : Presets()) {
    EXPECT_NO_THROW(ResolveRecipe(LoadRecipe(std::string(preset.name)))) << preset.name;
    EXPECT_LE(18 + preset.summary.size(), 80u) << preset.name;
    EXPECT_LT(preset.name.size(), 18u);
  }
}

TEST(RecipeRules, AFlagSplitsAtItsLastEqualsSign) {
  const RuleDraft rule = ParseRule("(?=x)a=w4a16:g64");
  EXPECT_EQ(rule.pattern, "(?=x)a");
  EXPECT_EQ(rule.scheme, "w4a16:g64");
  for (const char* text : {"", "=", "a=", "=w4a16", "a"}) {
    EXPECT_THROW(ParseRule(text), Error) << text;
  }
}

}  // namespace
}  // namespace quantmill::test
