#include "quant/model/model_source.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "formats/safetensors.h"

namespace quantmill {
namespace {

// A tiny Llama on disk whose tensors a test may change before it is opened.
class ModelSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    config_ = {{"architectures", {"LlamaForCausalLM"}},
               {"hidden_size", 8},
               {"intermediate_size", 16},
               {"num_hidden_layers", 1},
               {"num_attention_heads", 2},
               {"vocab_size", 10}};
    const std::string block = "model.layers.0.";
    for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) {
      shapes_[block + "self_attn." + name + ".weight"] = {8, 8};
    }
    shapes_[block + "mlp.gate_proj.weight"] = {16, 8};
    shapes_[block + "mlp.up_proj.weight"] = {16, 8};
    shapes_[block + "mlp.down_proj.weight"] = {8, 16};
    shapes_[block + "input_layernorm.weight"] = {8};
    shapes_[block + "post_attention_layernorm.weight"] = {8};
    shapes_["model.embed_tokens.weight"] = {10, 8};
    shapes_["model.norm.weight"] = {8};
    shapes_["lm_head.weight"] = {10, 8};
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  // Writes everything; element [0] of `poisoned` becomes NaN.
  void Save(const std::string& poisoned = "") {
    std::ofstream(folder_ / "config.json") << config_;
    std::vector<TensorDeclaration> declarations;
    declarations.reserve(shapes_.size());
    for (const auto& [name, shape] : shapes_) {
      declarations.push_back(Declare(name, DType::kF32, shape));
    }
    std::filesystem::remove(folder_ / "model.safetensors");
    SafetensorsWriter writer(folder_ / "model.safetensors", declarations);
    for (const TensorDeclaration& d : declarations) {
      std::vector<float> values(d.bytes() / sizeof(float), 0.5f);
      if (d.name == poisoned) values[3] = std::numeric_limits<float>::quiet_NaN();
      writer.Write(d.name, std::as_bytes(std::span(values)));
    }
    writer.Finish();
  }
  std::string ErrorOfOpening() {
    try {
      ModelSource::Open(folder_.string());
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return error.what();
    }
    return "";
  }

  std::filesystem::path folder_;
  nlohmann::json config_;
  std::map<std::string, std::vector<int64_t>> shapes_;
};

TEST_F(ModelSourceTest, OpensAndReads) {
  Save();
  const ModelSource source = ModelSource::Open(folder_.string());
  EXPECT_EQ(source.artifact(), nullptr);
  EXPECT_TRUE(source.unknown_tensors().empty());
  const LinearSpec& down = source.spec().blocks[0].down;
  EXPECT_FALSE(source.SchemeOf(down).has_value());
  const DenseMatrix stored = source.DenseWeight(down);
  const ConstMatrix weight = stored;
  EXPECT_EQ(weight.rows, 8);
  EXPECT_EQ(weight.cols, 16);
  EXPECT_EQ(weight.Row<float>(7)[15], 0.5f);
  EXPECT_EQ(source.WeightName(source.spec().lm_head), "lm_head.weight");
}

TEST_F(ModelSourceTest, MissingTensorIsNamedWithItsShape) {
  shapes_.erase("model.layers.0.mlp.up_proj.weight");
  Save();
  const std::string message = ErrorOfOpening();
  EXPECT_NE(message.find("model.layers.0.mlp.up_proj.weight"), std::string::npos);
  EXPECT_NE(message.find("[16, 8]"), std::string::npos);
}

TEST_F(ModelSourceTest, WrongShapeIsNamed) {
  shapes_["model.layers.0.self_attn.k_proj.weight"] = {4, 8};
  Save();
  const std::string message = ErrorOfOpening();
  EXPECT_NE(message.find("k_proj"), std::string::npos);
  EXPECT_NE(message.find("[4, 8]"), std::string::npos);
  EXPECT_NE(message.find("[8, 8]"), std::string::npos);
}

TEST_F(ModelSourceTest, UnknownTensorsAreListedNotRefused) {
  shapes_["model.layers.1.mtp.weight"] = {3};
  Save();
  const ModelSource source = ModelSource::Open(folder_.string());
  EXPECT_EQ(source.unknown_tensors(), std::vector<std::string>{"model.layers.1.mtp.weight"});
}

TEST_F(ModelSourceTest, TiedHeadNeedsNoTensorAndACopyIsTolerated) {
  config_["tie_word_embeddings"] = true;
  Save();
  EXPECT_TRUE(ModelSource::Open(folder_.string()).unknown_tensors().empty());
  shapes_.erase("lm_head.weight");
  Save();
  const ModelSource source = ModelSource::Open(folder_.string());
  EXPECT_EQ(source.WeightName(source.spec().lm_head), "model.embed_tokens.weight");
}

TEST_F(ModelSourceTest, UntiedHeadMustBeThere) {
  shapes_.erase("lm_head.weight");
  Save();
  EXPECT_NE(ErrorOfOpening().find("lm_head.weight"), std::string::npos);
}

TEST_F(ModelSourceTest, NaNIsFoundAndPlaced) {
  Save("model.layers.0.mlp.down_proj.weight");
  const ModelSource source = ModelSource::Open(folder_.string());
  try {
    source.DenseWeight(source.spec().blocks[0].down);
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(error.where().find("down_proj"), std::string::npos);
    EXPECT_NE(error.message().find("[0, 3]"), std::string::npos) << error.message();
  }
}

}  // namespace
}  // namespace quantmill
