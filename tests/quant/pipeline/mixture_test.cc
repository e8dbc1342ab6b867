// The main flow on mixtures of experts: the golden models of make_golden.py with a tokenizer of
// their 96 tokens. Tests run in the source root.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <numeric>

#include "formats/json.h"
#include "formats/sha256.h"
#include "kernels/core/thread_pool.h"
#include "quant/pipeline/budget.h"
#include "quant/pipeline/convert.h"
#include "quant/pipeline/quantize.h"
#include "quant/pipeline/schemes.h"
#include "quant/verify/verify_artifact.h"
#include "tests/quant/runtime/golden_copy.h"
#include "tests/quant/verify/tiny_artifact.h"

namespace quantmill::test {
namespace {

using testing::HasSubstr;

class MixtureTest : public testing::TestWithParam<const char*> {
 protected:
  static constexpr int64_t kWindows = 6;
  static constexpr int64_t kWindow = 32;

  MixtureTest() : MixtureTest(GetParam()) {}
  explicit MixtureTest(const std::string& golden)
      : golden_(golden), copy_("mixture", golden, (kWindows + 4) * kWindow) {}

  std::string Text() const { return copy_.text(); }
  std::string Model() const { return copy_.model(); }
  std::string Output(const std::string& name) const { return copy_.output(name); }

  Recipe SmallRecipe(Method method = Method::kGptq, Effort effort = Effort::kBest) const {
    Recipe recipe;
    recipe.method = method;
    recipe.effort = effort;
    recipe.scheme.group_size = 16;
    recipe.calibration.text = Text();
    recipe.calibration.samples = kWindows;
    recipe.calibration.sequence_length = kWindow;
    return recipe;
  }
  // Of the experts alone, whose sizes fill whole words of the formats that pack eight codes in one.
  Recipe RecipeOfExperts() const {
    Recipe recipe = SmallRecipe(Method::kRtn);
    recipe.rules.push_back(
        {".*(self_attn|shared_expert|mlp)\\.[a-z]+_proj", std::nullopt, "--keep-dense"});
    return recipe;
  }
  QuantizeReport Run(const Recipe& recipe, const std::string& name, int threads = 1) const {
    BackendRun run(CpuBackend(AvailableIsas().front(), threads));
    const ModelSource source = ModelSource::Open(Model());
    return Quantize(run.backend(), run.exec(), source, recipe, Output(name), {}, {});
  }
  VerifyReport Verify(const std::string& name) const {
    ThreadPool pool(1);
    const ModelSource source = ModelSource::Open(Model());
    return VerifyArtifact(Output(name), &source, pool, {});
  }
  // Of the golden tokens, one step or many.
  std::vector<float> Logits(const std::string& name, const std::vector<int64_t>& steps) const {
    BackendRun run(CpuBackend(AvailableIsas().front(), 1));
    const ModelSource source = ModelSource::Open(Output(name));
    DecoderModel model(run.backend(), run.exec(), source, Compute::kF32);
    return RunInSteps(run, model, ReadExpected(golden_).ids, steps);
  }

  std::string golden_;
  GoldenCopy copy_;
};

TEST_P(MixtureTest, EveryLayerIsQuantizedAndCoverageReported) {
  const QuantizeReport report = Run(SmallRecipe(), "out");
  const ModelSource artifact = ModelSource::Open(Output("out"));
  EXPECT_EQ(report.layers.size(), artifact.spec().Linears().size());
  for (const LinearSpec* linear : artifact.spec().Linears()) {
    EXPECT_TRUE(artifact.SchemeOf(*linear).has_value()) << linear->name;
  }
  const auto& config = artifact.checkpoint().config().at("quantization_config");
  auto coverage = report.mixtures.begin();
  for (const BlockSpec& block : artifact.spec().blocks) {
    for (const LinearSpec* linear : block.RoutingLinears()) {
      EXPECT_FALSE(artifact.SchemeOf(*linear).has_value()) << linear->name;
      EXPECT_THAT(config.at("ignore"), testing::Contains(linear->name));
    }
    if (!block.is_mixture()) continue;
    ASSERT_NE(coverage, report.mixtures.end());
    EXPECT_EQ(coverage->block, block.prefix);
    EXPECT_EQ(coverage->tokens.size(), block.mixture.experts.size());
    EXPECT_EQ(std::accumulate(coverage->tokens.begin(), coverage->tokens.end(), int64_t{0}),
              block.mixture.top_k * kWindows * kWindow);
    ++coverage;
  }
  EXPECT_EQ(coverage, report.mixtures.end());
  const auto record = ReadJsonFile(Output("out") + "/quantmill.json");
  EXPECT_EQ(record.at("calibration").at("tokens_by_expert").size(), report.mixtures.size());
  EXPECT_TRUE(Verify("out").passed());
}

// Unrelated logits of this spread (1.6) would be about 2.3 apart. Fewer bits send some tokens to
// other experts, which moves theirs further than rounding does.
TEST_P(MixtureTest, EveryFormatDecodes) {
  const Expected expected = ReadExpected(golden_);
  const auto distance = [&](const std::string& name) {
    const std::vector<float> logits = Logits(name, {1000});
    EXPECT_EQ(Logits(name, {1}), logits) << name << ": prefill and decode differ";
    double squares = 0;
    for (size_t i = 0; i < logits.size(); ++i) {
      squares += std::pow(double{logits[i]} - double{expected.logits[i]}, 2);
    }
    return std::sqrt(squares / static_cast<double>(logits.size()));
  };
  for (const char* format : {"compressed-tensors", "gptq", "gptq_v2"}) {
    Recipe recipe = RecipeOfExperts();
    recipe.scheme.bits = 8;
    recipe.format = format;
    Run(recipe, format);
    EXPECT_LT(distance(format), 0.2) << format;
  }
  Recipe recipe = RecipeOfExperts();
  recipe.format = "awq";
  recipe.scheme.symmetric = false;
  Run(recipe, "awq");
  EXPECT_LT(distance("awq"), 1.2);
  recipe = SmallRecipe(Method::kRtn);
  recipe.scheme = MakeScheme(ParseScheme("fp8-tensor", "test"), "test");
  recipe.format = "fp8";
  Run(recipe, "fp8");
  EXPECT_LT(distance("fp8"), 0.6);
}

TEST_P(MixtureTest, SameBytesForAnyNumberOfThreads) {
  Recipe recipe = SmallRecipe();
  recipe.transform = Transform::kAwq;
  Run(recipe, "one", 1);
  Run(recipe, "three", 3);
  for (const char* file : {"model.safetensors", "quantmill.json"}) {
    EXPECT_EQ(HashFile(Output("one") + "/" + file), HashFile(Output("three") + "/" + file)) << file;
  }
}

// The folded router is part of the artifact, and verify knows it.
TEST_P(MixtureTest, ScalesOfExpertsAreFoldedAndVerified) {
  Recipe recipe = SmallRecipe(Method::kRtn);
  recipe.transform = Transform::kSmoothQuant;
  recipe.smoothing_alpha = 0.5;
  recipe.scheme = MakeScheme(ParseScheme("w8a8", "test"), "test");
  const QuantizeReport report = Run(recipe, "out");
  const VerifyReport verified = Verify("out");
  EXPECT_TRUE(verified.passed()) << verified.problems.front().what;
  const auto record = ReadJsonFile(Output("out") + "/quantmill.json");
  for (const MixtureCoverage& mixture : report.mixtures) {
    const bool undone = std::ranges::any_of(report.events, [&](const Event& event) {
      return event.kind == "folding_kept_identity" &&
             event.where == mixture.block + ": mlp outputs of all experts";
    });
    const auto folding = record.at("folding").find(mixture.block);
    const bool folded = folding != record.at("folding").end() && folding->contains("mlp_out.0");
    EXPECT_NE(folded, undone) << mixture.block;
  }
}

TEST_P(MixtureTest, RepackedToAnotherFormat) {
  ThreadPool pool(1);
  Run(RecipeOfExperts(), "packed");
  const ModelSource packed = ModelSource::Open(Output("packed"));
  ConvertArtifact(packed, "gptq", Output("gptq"), false, pool, [](auto&&...) {});
  EXPECT_EQ(Logits("gptq", {1000}), Logits("packed", {1000}));
  EXPECT_TRUE(Verify("gptq").passed());
}

INSTANTIATE_TEST_SUITE_P(Families, MixtureTest,
                         testing::Values("mixtral", "qwen2_moe", "qwen3_moe"),
                         [](const auto& family) { return std::string(family.param); });

class MixtralTest : public MixtureTest {
 protected:
  MixtralTest() : MixtureTest("mixtral") {}
};

TEST_F(MixtralTest, UnreachedExpertsAreAnEvent) {
  const std::string router = "model.layers.1.block_sparse_moe.gate.weight";
  TinyArtifact::ChangeTensors(Model(), [&](TensorMap& tensors) {
    // Every expert the first one's row: the two of lowest index win all ties.
    std::vector<std::byte>& bytes = tensors.at(router).bytes;
    const auto row = static_cast<std::ptrdiff_t>(bytes.size() / 4);
    for (std::ptrdiff_t i = 1; i < 4; ++i) {
      std::copy_n(bytes.begin(), row, bytes.begin() + i * row);
    }
  });
  const QuantizeReport report = Run(SmallRecipe(Method::kGptq, Effort::kFast), "out");
  const auto event = std::ranges::find(report.events, "unreached_experts", &Event::kind);
  ASSERT_NE(event, report.events.end());
  EXPECT_EQ(event->where, "model.layers.1");
  EXPECT_THAT(event->what, HasSubstr("no calibration token to 2 of 4 experts ({2-3})"));
  EXPECT_FALSE(event->is_fallback);
  // Calibrated all the same: better than rounding on what they compute.
  for (const LayerResult& layer : report.layers) {
    if (!layer.name.ends_with("layers.1.block_sparse_moe.experts.3.w2")) continue;
    EXPECT_LT(layer.relative_error, layer.rounded_error);
  }
}

TEST_F(MixtralTest, MissingExpertIsAnError) {
  Run(SmallRecipe(Method::kRtn), "out");
  const std::string expert = "model.layers.0.block_sparse_moe.experts.2.w3";
  TinyArtifact::ChangeTensors(Output("out"), [&](TensorMap& tensors) {
    std::erase_if(tensors, [&](const auto& tensor) { return tensor.first.starts_with(expert); });
  });
  const VerifyReport report = Verify("out");
  EXPECT_FALSE(report.passed());
  EXPECT_TRUE(std::ranges::any_of(report.problems, [&](const Problem& problem) {
    return problem.where.find(expert) != std::string::npos ||
           problem.what.find(expert) != std::string::npos;
  }));
  EXPECT_THROW(ModelSource::Open(Output("out")), Error);
}

TEST_F(MixtralTest, ExpertsOfABlockShareAScheme) {
  Recipe recipe = SmallRecipe(Method::kRtn);
  QuantScheme other = recipe.scheme;
  other.bits = 8;
  recipe.rules.push_back({".*layers\\.0\\..*experts\\.1\\.w2", other, "--rule"});
  try {
    Run(recipe, "out");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_THAT(error.what(), HasSubstr("experts.1.w2"));
  }
  recipe.rules.back().pattern = ".*layers\\.0\\..*experts\\.";
  Run(recipe, "out");
  const ModelSource artifact = ModelSource::Open(Output("out"));
  EXPECT_EQ(artifact.SchemeOf(artifact.spec().blocks[0].mixture.experts[3].up)->bits, 8);
  EXPECT_EQ(artifact.SchemeOf(artifact.spec().blocks[1].mixture.experts[3].up)->bits, 4);
}

TEST_F(MixtralTest, BudgetChoosesExpertsOfABlockTogether) {
  BackendRun run(CpuBackend(AvailableIsas().front(), 1));
  const ModelSource source = ModelSource::Open(Model());
  const Recipe recipe = SmallRecipe(Method::kRtn);
  const QuantizePlan plan = PlanQuantization(source, recipe, run.backend().Info());
  const Sensitivity sensitivity =
      MeasureSensitivity(run.backend(), run.exec(), source, plan, [](auto&&...) {});
  ASSERT_EQ(sensitivity.groups.size(), 2u * 3);
  const LayerGroup& experts = sensitivity.groups[2];
  EXPECT_EQ(experts.name, "model.layers.0.block_sparse_moe.experts.[0-9]+.(w1|w3|w2)");
  EXPECT_EQ(experts.layers.size(), 12u);
  for (size_t i = 1; i < experts.errors.size(); ++i) {
    EXPECT_LT(experts.errors[i], experts.errors[i - 1]);
    EXPECT_LE(sensitivity.Cost(experts, i), sensitivity.Cost(experts, i - 1));
  }
  EXPECT_GT(sensitivity.Cost(experts, 0), 0);
  Recipe mixed = Allocated(recipe, sensitivity, AllocateBits(sensitivity, 5.5));
  mixed.calibration.text = Text();
  Run(mixed, "out");
  EXPECT_TRUE(Verify("out").passed());
}

}  // namespace
}  // namespace quantmill::test
