// The golden models of every layout, quantized into every format, read back and run.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "kernels/core/thread_pool.h"
#include "quant/model/gguf_layout.h"
#include "quant/pipeline/convert.h"
#include "quant/pipeline/quantize.h"
#include "quant/pipeline/schemes.h"
#include "tests/quant/runtime/golden_model.h"

namespace quantmill::test {
namespace {

struct Target {
  std::string format;
  std::string scheme;
  double tolerance;  // of the logits, in their spread: 16 or 256 levels in a group
};

class FamiliesArtifact : public testing::TestWithParam<const char*> {
 protected:
  FamiliesArtifact() : run_(CpuBackend(AvailableIsas().front(), 1)) {
    folder_ = std::filesystem::path(testing::TempDir()) / ("artifact_" + std::string(GetParam()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~FamiliesArtifact() override { std::filesystem::remove_all(folder_); }

  std::vector<float> Logits(const std::string& model, const std::vector<int32_t>& ids) {
    const ModelSource source = ModelSource::Open(model);
    DecoderModel decoder(run_.backend(), run_.exec(), source, Compute::kF32);
    return RunInSteps(run_, decoder, ids, {1000});
  }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  BackendRun run_;
  std::filesystem::path folder_;
};

// Root mean square over that of `want`.
double RelativeDifference(const std::vector<float>& got, const std::vector<float>& want) {
  double difference = 0;
  double size = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    difference += std::pow(static_cast<double>(got[i]) - want[i], 2);
    size += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(difference / size);
}

// GPTQ's words hold 32 rows or columns, which BLOOM's three heads and Falcon 7b's 48 rows do not
// fill.
bool FillsWords(const DecoderSpec& spec) {
  const std::vector<const LinearSpec*> linears = spec.Linears();
  return std::ranges::all_of(
      linears, [](const LinearSpec* l) { return l->in % 32 == 0 && l->out % 32 == 0; });
}

// Quantize ends with a verification against the source. What was written computes what its
// dequantized twin does, to the bit (where inputs stay as they are), and nearly what the source
// does.
TEST_P(FamiliesArtifact, EveryFormatHoldsTheModel) {
  const Expected expected = ReadExpected(GetParam());
  const ModelSource source = ModelSource::Open(GoldenFolder(GetParam()));
  ThreadPool pool(1);
  for (const auto& [format, scheme, tolerance] :
       {Target{"compressed-tensors", "w8a16:g8", 0.05}, Target{"gptq", "w8a16:g8", 0.05},
        Target{"gptq_v2", "w4a16:g8", 0.6}, Target{"awq", "w4a16:g8:asym", 0.6},
        Target{"fp8", "fp8-tensor", 0.4}, Target{"compressed-tensors", "w8a8", 0.2}}) {
    SCOPED_TRACE(format + " " + scheme);
    if (format.starts_with("gptq") && !FillsWords(source.spec())) continue;
    Recipe recipe;
    recipe.method = Method::kRtn;
    recipe.format = format;
    recipe.scheme = MakeScheme(ParseScheme(scheme, "test"), "test");
    const std::string artifact = Path(format + "_" + scheme);
    Quantize(run_.backend(), run_.exec(), source, recipe, artifact, {}, {});
    const std::vector<float> logits = Logits(artifact, expected.ids);
    const double difference = RelativeDifference(logits, expected.logits);
    EXPECT_LT(difference, tolerance);
    EXPECT_GT(difference, 1e-4) << "nothing was rounded";
    if (recipe.scheme.input.type != InputScheme::Type::kNone) continue;
    const std::string twin = artifact + "_twin";
    DequantizeArtifact(ModelSource::Open(artifact), DType::kF32, twin, false, pool,
                       [](const std::string&, int64_t, int64_t, const std::string&) {});
    EXPECT_EQ(Logits(twin, expected.ids), logits);
  }
}

// llama.cpp has no graph of these.
TEST(GgufOfFamilies, IsRefusedByName) {
  for (const char* name : {"opt", "opt_350m"}) {
    const ModelSource source = ModelSource::Open(GoldenFolder(name));
    try {
      DescribeGguf(source.spec(), ConfigReader(source.checkpoint().config(), "config.json"));
      FAIL();
    } catch (const Error& error) {
      EXPECT_NE(error.message().find(source.spec().architecture), std::string::npos);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FamiliesArtifact,
                         testing::Values("opt", "opt_350m", "gpt2", "gpt_neox", "falcon_7b",
                                         "falcon_40b", "falcon_rw", "bloom", "gemma2", "gemma3",
                                         "phi3"),
                         [](const auto& family) { return std::string(family.param); });

}  // namespace
}  // namespace quantmill::test
