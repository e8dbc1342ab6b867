// A rotated model computes what the original does: every golden family, in F32.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "quant/model/rotated_model.h"
#include "tests/quant/runtime/golden_model.h"

namespace quantmill::test {
namespace {

// The golden models are FP16, where each rotated weight would be rounded to 11 bits. In F32 the
// tolerance can be that of decoder_golden_test: a rotated weight carries a rounding of 2^-24, as
// each of its products does.
constexpr double kTolerance = 1e-4;

using Replace = std::function<const Checkpoint&(const std::string& tensor)>;

class RotationGolden : public testing::TestWithParam<const char*> {
 protected:
  RotationGolden() : run_(CpuBackend(AvailableIsas().front(), 1)), pool_(2) {}

  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) / (std::string("rotation_") + GetParam());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    const auto golden = Checkpoint::Open(GoldenFolder(GetParam()));
    Save("f32", golden.config(), golden.names(),
         [&](const std::string&) -> const Checkpoint& { return golden; });
    expected_ = ReadExpected(GetParam());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // A folder of F32 tensors, each taken from the checkpoint that `from` names for it.
  void Save(const std::string& name, const nlohmann::json& config,
            const std::vector<std::string>& tensors, const Replace& from) {
    std::filesystem::remove_all(folder_ / name);
    std::filesystem::create_directories(folder_ / name);
    std::ofstream(folder_ / name / "config.json") << config;
    std::vector<TensorDeclaration> declarations;
    declarations.reserve(tensors.size());
    for (const std::string& tensor : tensors) {
      declarations.push_back({tensor, "F32", from(tensor).Info(tensor).shape});
    }
    SafetensorsWriter writer(folder_ / name / "model.safetensors", declarations);
    for (const std::string& tensor : tensors) {
      const ConstMatrix stored = from(tensor).View(tensor);
      std::vector<float> values(static_cast<size_t>(stored.size()));
      for (int64_t r = 0; r < stored.rows; ++r) {
        WidenRow(stored, r, values.data() + r * stored.cols);
      }
      writer.Write(tensor, std::as_bytes(std::span(values)));
    }
    writer.Finish();
  }

  std::vector<float> Logits(const ModelSource& source) {
    DecoderModel model(run_.backend(), run_.exec(), source, Compute::kF32);
    return RunInSteps(run_, model, expected_.ids, {1000});
  }

  BackendRun run_;
  ThreadPool pool_;
  std::filesystem::path folder_;
  Expected expected_;
};

TEST_P(RotationGolden, LogitsAreUnchanged) {
  const ModelSource source = ModelSource::Open((folder_ / "f32").string());
  const RotatedModel rotated(source, folder_ / "out", pool_, {});
  EXPECT_FALSE(rotated.model().spec().tied);
  const std::vector<float> logits = Logits(rotated.model());
  const std::vector<float> plain = Logits(source);
  const double spread = *std::ranges::max_element(plain) - *std::ranges::min_element(plain);
  EXPECT_LT(LargestDifference(logits, plain), kTolerance * spread);
}

// Any one tensor left as it was breaks them: nothing above is true by chance. (Not so the biases
// and gains of these models where a family has none, and lm_head where it was the embedding.)
TEST_P(RotationGolden, EveryTensorMatters) {
  const ModelSource source = ModelSource::Open((folder_ / "f32").string());
  const RotatedModel rotated(source, folder_ / "out", pool_, {});
  const std::vector<float> plain = Logits(source);
  const double spread = *std::ranges::max_element(plain) - *std::ranges::min_element(plain);
  const Checkpoint& turned = rotated.model().checkpoint();
  for (const auto& [name, change] : rotated.rotation().tensors()) {
    if (!source.checkpoint().Has(name)) continue;
    Save("mixed", turned.config(), turned.names(),
         [&](const std::string& tensor) -> const Checkpoint& {
           return tensor == name ? source.checkpoint() : turned;
         });
    const std::vector<float> logits = Logits(ModelSource::Open((folder_ / "mixed").string()));
    EXPECT_GT(LargestDifference(logits, plain), 20 * kTolerance * spread) << name;
  }
}

TEST_P(RotationGolden, SameBytesForAnyNumberOfThreads) {
  const ModelSource source = ModelSource::Open(GoldenFolder(GetParam()));
  ThreadPool one(1);
  const RotatedModel a(source, folder_ / "a", pool_, {});
  const RotatedModel b(source, folder_ / "b", one, {});
  for (const std::string& name : a.model().checkpoint().names()) {
    EXPECT_TRUE(
        std::ranges::equal(a.model().checkpoint().Bytes(name), b.model().checkpoint().Bytes(name)))
        << name;
    EXPECT_EQ(a.model().checkpoint().Info(name).dtype, "F16");
  }
}

INSTANTIATE_TEST_SUITE_P(Families, RotationGolden,
                         testing::Values("llama_gqa", "llama_mha_tied_bias", "llama_mqa",
                                         "mistral_window", "qwen2", "qwen3", "phi3", "qwen2_moe"),
                         [](const auto& family) { return std::string(family.param); });

class RotationRefusal : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // One Llama block of this width; `more`: tensors that no layer has.
  std::string Refused(int64_t hidden, const std::map<std::string, std::vector<int64_t>>& more) {
    const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                   {"hidden_size", hidden},
                                   {"vocab_size", 3},
                                   {"intermediate_size", 4},
                                   {"num_hidden_layers", 1},
                                   {"num_attention_heads", 1},
                                   {"head_dim", 2}};
    std::ofstream(folder_ / "config.json") << config;
    std::map<std::string, std::vector<int64_t>> shapes = {
        {"model.embed_tokens", {3, hidden}}, {"model.norm", {hidden}}, {"lm_head", {3, hidden}}};
    const std::string block = "model.layers.0.";
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) {
      shapes[block + norm] = {hidden};
    }
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
      shapes[block + "self_attn." + name] = {2, hidden};
    }
    shapes[block + "self_attn.o_proj"] = {hidden, 2};
    shapes[block + "mlp.gate_proj"] = shapes[block + "mlp.up_proj"] = {4, hidden};
    shapes[block + "mlp.down_proj"] = {hidden, 4};
    shapes.insert(more.begin(), more.end());
    std::vector<TensorDeclaration> declarations;
    declarations.reserve(shapes.size());
    for (const auto& [name, shape] : shapes) {
      declarations.push_back({name + ".weight", "F32", shape});
    }
    std::filesystem::remove(folder_ / "model.safetensors");
    SafetensorsWriter writer(folder_ / "model.safetensors", declarations);
    for (const TensorDeclaration& d : declarations) {
      const std::vector<float> ones(d.bytes() / sizeof(float), 1.0f);
      writer.Write(d.name, std::as_bytes(std::span(ones)));
    }
    writer.Finish();
    try {
      const ModelSource source = ModelSource::Open(folder_.string());
      const Rotation rotation(source);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_EQ(error.where(), "--rotate");
      return error.message();
    }
    return "";
  }

  std::filesystem::path folder_ = std::filesystem::path(testing::TempDir()) / "rotation_refusal";
};

TEST_F(RotationRefusal, SizesWithoutAHadamardMatrixAreNamed) {
  EXPECT_EQ(Refused(12, {}), "");
  EXPECT_NE(Refused(6, {}).find("hidden size 6 "), std::string::npos);
}

TEST_F(RotationRefusal, UnknownTensorsThatMayReadTheStreamAreNamed) {
  EXPECT_EQ(Refused(12, {{"model.other", {5, 7}}}), "");
  EXPECT_NE(Refused(12, {{"model.other", {5, 12}}}).find("'model.other.weight'"),
            std::string::npos);
}

TEST_F(RotationRefusal, NormsBehindAttentionAndMlp) {
  for (const char* name : {"gemma2", "gemma3"}) {
    const ModelSource source = ModelSource::Open(GoldenFolder(name));
    try {
      const Rotation rotation(source);
      ADD_FAILURE() << name;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
      EXPECT_NE(error.message().find("norms behind attention"), std::string::npos);
    }
  }
}

TEST(Rotation, LeavesNothingBehind) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / "rotation_leaves_nothing";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  ThreadPool pool(1);
  const ModelSource source = ModelSource::Open(GoldenFolder("llama_gqa"));
  {
    const RotatedModel rotated(source, folder / "out", pool, {});
    EXPECT_FALSE(std::filesystem::is_empty(folder));
    EXPECT_EQ(rotated.model().path(), source.path());
    EXPECT_EQ(&rotated.model().original(), &source);
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  EXPECT_THROW(RotatedModel(source, folder / "out", pool,
                            [](int64_t done, int64_t, const std::string&) {
                              if (done == 3) throw Error(ErrorCode::kInterrupted, "x", "y");
                            }),
               Error);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace quantmill::test
