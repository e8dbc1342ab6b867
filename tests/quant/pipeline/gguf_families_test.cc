// The golden models of every family that llama.cpp has, as GGUF files and back. Tests run in the
// source root.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "formats/gguf/imatrix.h"
#include "formats/json.h"
#include "kernels/core/thread_pool.h"
#include "quant/pipeline/convert_folder.h"
#include "quant/pipeline/convert_gguf.h"
#include "quant/pipeline/importance.h"
#include "quant/pipeline/quantize.h"
#include "quant/pipeline/schemes.h"
#include "tests/quant/runtime/golden_model.h"

namespace quantmill::test {
namespace {

// The golden models have no tokenizer, and a file needs one. Texts have these letters.
constexpr const char* kTokenizer = R"({"version": "1.0", "added_tokens": [], "normalizer": null,
  "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                    "use_regex": true},
  "post_processor": null,
  "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
              "use_regex": true},
  "model": {"type": "BPE", "vocab": {"</s>": 0, "a": 1, "b": 2, "c": 3, "ab": 4},
            "merges": ["a b"]}})";

// A golden model, and keys of its config.json that llama.cpp wants otherwise.
struct Golden {
  const char* name;
  const char* keys = "{}";
};

class GgufFamilies : public testing::TestWithParam<Golden> {
 protected:
  GgufFamilies() : run_(CpuBackend(AvailableIsas().front(), 1)), pool_(1) {
    folder_ = std::filesystem::path(testing::TempDir()) /
              ("gguf_" + std::string(GetParam().name) + "_" + std::to_string(getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::filesystem::copy(GoldenFolder(GetParam().name), folder_ / "model");
    nlohmann::json config = ReadJsonFile(folder_ / "model" / "config.json");
    config.merge_patch(ParseJson(GetParam().keys, "test"));
    std::ofstream(folder_ / "model" / "config.json") << config;
    std::ofstream(folder_ / "model" / "tokenizer.json") << kTokenizer;
    std::ofstream(folder_ / "model" / "tokenizer_config.json") << R"({"eos_token": "</s>"})";
    std::ofstream text(folder_ / "text");
    for (int i = 0; i < 2000; ++i) text << "abc"[(i * i + 7 * i / 5) % 3];
  }
  ~GgufFamilies() override { std::filesystem::remove_all(folder_); }

  std::string Path(const std::string& name) const { return (folder_ / name).string(); }

  void Convert(const std::string& from, const std::string& to, const std::string& type,
               const std::string& imatrix = "") {
    GgufOptions options;
    options.type = type;
    options.imatrix = imatrix;
    WriteGguf(ModelSource::Open(from), options, to, false, pool_, kSilent);
  }
  // Rounded, in groups of 32; layers of other widths stay dense.
  std::string Artifact(const std::string& scheme) {
    const ModelSource source = ModelSource::Open(Path("model"));
    Recipe recipe;
    recipe.method = Method::kRtn;
    recipe.scheme = MakeScheme(ParseScheme(scheme, "test"), "test");
    for (const LinearSpec* linear : source.spec().Linears()) {
      if (linear->in % 32 == 0) continue;
      recipe.rules.push_back({linear->name, std::nullopt, "--keep-dense"});
    }
    const std::string artifact = Path(scheme.substr(0, 2));
    Quantize(run_.backend(), run_.exec(), source, recipe, artifact, {}, {});
    return artifact;
  }
  std::vector<float> Logits(const std::string& model) {
    const ModelSource source = ModelSource::Open(model);
    DecoderModel decoder(run_.backend(), run_.exec(), source, Compute::kF32);
    return RunInSteps(run_, decoder, ReadExpected(GetParam().name).ids, {1000});
  }

  static constexpr auto kSilent = [](const std::string&, int64_t, int64_t, const std::string&) {};
  BackendRun run_;
  ThreadPool pool_;
  std::filesystem::path folder_;
};

// All that a forward computes with is in the file: tensors, sizes, scalings.
TEST_P(GgufFamilies, AFileComputesWhatTheFolderDoes) {
  Convert(Path("model"), Path("f16.gguf"), "f16");  // as they are stored
  EXPECT_EQ(Logits(Path("f16.gguf")), Logits(Path("model")));
}

TEST_P(GgufFamilies, AndBecomesTheFolderAgain) {
  Convert(Path("model"), Path("f16.gguf"), "f16");
  WriteDenseFolder(ModelSource::Open(Path("f16.gguf"), {.codes = false}), Path("again"), false,
                   pool_, kSilent);
  const ModelSource model = ModelSource::Open(Path("model"));
  const ModelSource again = ModelSource::Open(Path("again"));
  const std::vector<std::string>& names = model.checkpoint().names();
  ASSERT_EQ(again.checkpoint().names().size(), names.size());
  for (const std::string& name : names) {
    // Some golden models lack the base's prefix.
    const bool same = again.checkpoint().Has(name);
    const std::string found = same ? name : model.spec().base_prefix + name;
    ASSERT_TRUE(again.checkpoint().Has(found)) << name;
    EXPECT_EQ(again.checkpoint().Info(found).shape, model.checkpoint().Info(name).shape) << name;
    const ConstMatrix wanted = model.checkpoint().View(name);
    const ConstMatrix got = again.checkpoint().View(found);
    // A gain of less than 2^-13 loses bits to the 1 that the file adds to it.
    const double tolerance = model.spec().gain_offset != 0 && wanted.rows == 1 ? 0x1p-24 : 0;
    std::vector<float> a(static_cast<size_t>(wanted.cols));
    std::vector<float> b(a.size());
    for (int64_t row = 0; row < wanted.rows; ++row) {
      WidenRow(wanted, row, a.data());
      WidenRow(got, row, b.data());
      EXPECT_LE(LargestDifference(a, b), tolerance) << name;
    }
  }
}

TEST_P(GgufFamilies, CodesOfAnArtifactAreKept) {
  for (const char* scheme : {"w4a16:g32", "w8a16:g32", "mxfp4"}) {
    SCOPED_TRACE(scheme);
    const std::string artifact = Artifact(scheme);
    const std::string file = artifact + ".gguf";
    Convert(artifact, file, "");
    EXPECT_EQ(Logits(file), Logits(artifact));
  }
}

// Layer by layer into blocks, each of which finds its place in the file; three letters are no
// calibration. What is read back is near the model.
TEST_P(GgufFamilies, QuantizedLayerByLayer) {
  Recipe recipe;
  recipe.method = Method::kRtn;
  recipe.effort = Effort::kFast;
  recipe.format = "gguf";
  recipe.gguf = GgufChoice{};
  recipe.gguf->type = "q8_0";
  recipe.calibration.text = Path("text");
  recipe.calibration.samples = 4;
  recipe.calibration.sequence_length = 32;
  Quantize(run_.backend(), run_.exec(), ModelSource::Open(Path("model")), recipe, Path("q.gguf"),
           {}, {});
  const std::vector<float> logits = Logits(Path("q.gguf"));
  const std::vector<float> wanted = Logits(Path("model"));
  double difference = 0;
  double size = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    difference += std::pow(static_cast<double>(logits[i]) - wanted[i], 2);
    size += std::pow(static_cast<double>(wanted[i]), 2);
  }
  difference = std::sqrt(difference / size);
  EXPECT_LT(difference, 0.1);  // 256 levels in a block, and tokens that go to another expert
  EXPECT_GT(difference, 1e-4) << "nothing was rounded";
}

// What the importance matrix names are the tensors that convert wants it for.
TEST_P(GgufFamilies, ImportanceMatrixFitsTheFile) {
  const ModelSource source = ModelSource::Open(Path("model"));
  TokenWindows windows;
  windows.length = 16;
  for (int32_t i = 0; i < 32; ++i) windows.ids.push_back((i * i) % 96);
  const ImportanceMatrix importance =
      MeasureImportance(run_.backend(), run_.exec(), source, windows, Compute::kF32,
                        [](int64_t, int64_t, const std::string&) {});
  EXPECT_EQ(std::ssize(importance.entries), CountImportanceEntries(source));
  WriteImportanceMatrix(Path("imatrix"), importance);
  Convert(Path("model"), Path("i.gguf"), "q4_0", Path("imatrix"));
}

INSTANTIATE_TEST_SUITE_P(Families, GgufFamilies,
                         testing::Values(Golden{"llama_gqa"}, Golden{"llama_rope_llama3"},
                                         Golden{"mixtral"},
                                         Golden{"gemma2", R"({"query_pre_attn_scalar": 16})"},
                                         Golden{"gemma3", R"({"query_pre_attn_scalar": 16})"},
                                         Golden{"phi3", R"({"sliding_window": 64})"},
                                         Golden{"phi3_long_rope"}, Golden{"gpt_neox"},
                                         Golden{"gpt2"}, Golden{"falcon_7b"}, Golden{"falcon_11b"},
                                         Golden{"falcon_40b"}, Golden{"bloom"}),
                         [](const auto& family) { return std::string(family.param.name); });

}  // namespace
}  // namespace quantmill::test
