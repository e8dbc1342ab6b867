#include "quant/model/block_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "formats/safetensors.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// One Llama block of width 2 in F16 whose gain and bias a test sets; every weight is 1.
class BlockSourceTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(testing::TempDir()) /
              (std::string("block_source_") +
               testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  ModelSource Save(const std::map<std::string, std::vector<float>>& values) {
    const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                   {"hidden_size", 2},
                                   {"intermediate_size", 2},
                                   {"num_hidden_layers", 1},
                                   {"num_attention_heads", 1},
                                   {"vocab_size", 3},
                                   {"attention_bias", true},
                                   {"mlp_bias", true}};
    std::ofstream(folder_ / "config.json") << config;
    std::map<std::string, std::vector<int64_t>> shapes = {{"model.embed_tokens.weight", {3, 2}},
                                                          {"model.norm.weight", {2}},
                                                          {"lm_head.weight", {3, 2}}};
    const std::string block = "model.layers.0.";
    for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                             "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
      shapes[block + name + ".weight"] = {2, 2};
      shapes[block + name + ".bias"] = {2};
    }
    shapes[block + "self_attn.qkv_proj.weight"] = {6, 2};  // of no use to most tests
    shapes[block + "self_attn.qkv_proj.bias"] = {6};
    for (const char* name : {"input_layernorm.weight", "post_attention_layernorm.weight"}) {
      shapes[block + name] = {2};
    }
    std::vector<TensorDeclaration> declarations;
    declarations.reserve(shapes.size());
    for (const auto& [name, shape] : shapes) declarations.push_back({name, "F16", shape});
    SafetensorsWriter writer(folder_ / "model.safetensors", declarations);
    for (const TensorDeclaration& d : declarations) {
      std::vector<F16> stored(d.bytes() / sizeof(F16), ToF16(1));
      const auto given = values.find(d.name);
      if (given != values.end()) {
        for (size_t i = 0; i < stored.size(); ++i) stored[i] = ToF16(given->second[i]);
      }
      writer.Write(d.name, std::as_bytes(std::span(stored)));
    }
    writer.Finish();
    return ModelSource::Open(folder_.string());
  }

  std::filesystem::path folder_;
};

constexpr const char* kGain = "model.layers.0.input_layernorm.weight";
constexpr const char* kBias = "model.layers.0.self_attn.v_proj.bias";

// 1 / 3 is no F16: the columns take what the stored gain leaves.
TEST_F(BlockSourceTest, ColumnsTakeTheScaleThatTheStoredGainHas) {
  const ModelSource source = Save({{kGain, {1, 2}}});
  const BlockSpec& block = source.spec().blocks[0];
  BlockFolding folding;
  folding.at(Site::kAttentionIn) = {ToBF16(3), ToBF16(0.5f)};
  const BlockSource folded(source, block, folding);
  const float third = ToFloat(ToF16(1.0f / 3));
  const Tensor gain = folded.Vector(kGain);
  EXPECT_EQ(gain.Row<float>(0)[0], third);
  EXPECT_EQ(gain.Row<float>(0)[1], 4);
  for (const LinearSpec* linear : block.LinearsAt(Site::kAttentionIn)) {
    const Tensor weight = folded.Weight(*linear);
    for (int64_t o = 0; o < 2; ++o) {
      EXPECT_EQ(weight.Row<float>(o)[0], 1.0f / third);
      EXPECT_EQ(weight.Row<float>(o)[1], 0.5f);
    }
  }
  EXPECT_FALSE(folded.Folds(block.output));
  EXPECT_FALSE(folded.Folds(block.gate));
  const std::vector<std::byte> bytes = folded.StoredTensor(kGain);
  const std::array<F16, 2> want = {ToF16(1.0f / 3), ToF16(4)};
  ASSERT_EQ(bytes.size(), sizeof(want));
  EXPECT_EQ(std::memcmp(bytes.data(), want.data(), sizeof(want)), 0);
}

// A gain of 0 stays; one that would leave F16's range is not folded.
TEST_F(BlockSourceTest, GainsThatCannotBeDividedStay) {
  const ModelSource source = Save({{kGain, {0, 60000}}});
  const BlockSpec& block = source.spec().blocks[0];
  BlockFolding folding;
  folding.at(Site::kAttentionIn) = {ToBF16(4), ToBF16(0.25f)};
  const BlockSource folded(source, block, folding);
  const Tensor gain = folded.Vector(kGain);
  EXPECT_EQ(gain.Row<float>(0)[0], 0);
  EXPECT_EQ(gain.Row<float>(0)[1], 60000);
  const Tensor weight = folded.Weight(block.query);
  EXPECT_EQ(weight.Row<float>(0)[0], 4);
  EXPECT_EQ(weight.Row<float>(0)[1], 1);
}

// Rows of value and its bias are divided by one scale, columns of output multiplied by it.
TEST_F(BlockSourceTest, BiasDecidesTheScaleOfItsRow) {
  const ModelSource source = Save({{kBias, {1, 0}}});
  const BlockSpec& block = source.spec().blocks[0];
  BlockFolding folding;
  folding.at(Site::kAttentionOut) = {ToBF16(3), ToBF16(3)};
  const BlockSource folded(source, block, folding);
  const float third = ToFloat(ToF16(1.0f / 3));
  const float effective = 1.0f / third;
  EXPECT_EQ(folded.Vector(kBias).Row<float>(0)[0], third);
  EXPECT_EQ(folded.Vector(kBias).Row<float>(0)[1], 0);
  const Tensor value = folded.Weight(block.value);
  EXPECT_EQ(value.Row<float>(0)[0], 1.0f / effective);
  EXPECT_EQ(value.Row<float>(1)[0], 1.0f / 3);
  const Tensor output = folded.Weight(block.output);
  EXPECT_EQ(output.Row<float>(0)[0], effective);
  EXPECT_EQ(output.Row<float>(0)[1], 3);
  EXPECT_FALSE(folded.Folds(block.query));
}

// Rows of value lie among others in a fused linear; those stay as they are.
TEST_F(BlockSourceTest, FoldsTheRowsOfValueInAFusedLinear) {
  const std::string fused = "model.layers.0.self_attn.qkv_proj";
  const ModelSource source = Save({{fused + ".bias", {1, 1, 1, 1, 1, 0}}});
  BlockSpec block = source.spec().blocks[0];
  block.FuseQueryKeyValue(fused, 2);  // q0 k0 v0 q1 k1 v1
  BlockFolding folding;
  folding.at(Site::kAttentionOut) = {ToBF16(3), ToBF16(3)};
  const BlockSource folded(source, block, folding);
  const float third = ToFloat(ToF16(1.0f / 3));
  const Tensor bias = folded.Vector(fused + ".bias");
  const std::vector<float> stored(bias.Row<float>(0), bias.Row<float>(0) + bias.cols());
  EXPECT_EQ(stored, (std::vector<float>{1, 1, third, 1, 1, 0}));
  const Tensor weight = folded.Weight(block.query_key_value);
  const std::array<float, 6> want = {1, 1, 1.0f / (1.0f / third), 1, 1, 1.0f / 3};
  for (int64_t row = 0; row < 6; ++row) {
    EXPECT_EQ(weight.Row<float>(row)[1], want[static_cast<size_t>(row)]) << row;
  }
  EXPECT_EQ(folded.Weight(block.output).Row<float>(0)[0], 1.0f / third);
}

// A gain that is stored less 1: 1 + w / 3 is what columns make up for.
TEST_F(BlockSourceTest, GainsStoredLessOne) {
  ModelSource source = Save({{kGain, {0.5f, -1}}});
  const_cast<DecoderSpec&>(source.spec()).gain_offset = 1;  // NOLINT(*-const-cast): not const
  const BlockSpec& block = source.spec().blocks[0];
  BlockFolding folding;
  folding.at(Site::kAttentionIn) = {ToBF16(3), ToBF16(3)};
  const BlockSource folded(source, block, folding);
  const Tensor gain = folded.Vector(kGain);
  EXPECT_EQ(gain.Row<float>(0)[0], -0.5f);
  EXPECT_EQ(gain.Row<float>(0)[1], -1) << "a gain of 0 stays";
  EXPECT_EQ(folded.Weight(block.query).Row<float>(0)[0], 3);
  folding.at(Site::kAttentionIn) = {ToBF16(7), ToBF16(1)};
  const BlockSource nearly(source, block, folding);
  const float stored = ToFloat(ToF16(1.5f / 7 - 1));
  EXPECT_EQ(nearly.Vector(kGain).Row<float>(0)[0], stored);
  EXPECT_EQ(nearly.Weight(block.query).Row<float>(0)[0], 1.5f / (stored + 1));
}

TEST_F(BlockSourceTest, OverflowNamesTheTensor) {
  const ModelSource source =
      Save({{"model.layers.0.self_attn.o_proj.weight", {60000, 1, 1, 1}}, {kBias, {0, 0}}});
  const BlockSpec& block = source.spec().blocks[0];
  BlockFolding folding;
  folding.at(Site::kAttentionOut) = {ToBF16(3e38f), ToBF16(1)};
  const BlockSource folded(source, block, folding);
  try {
    folded.Weight(block.output);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_NE(error.where().find("o_proj"), std::string::npos) << error.where();
  }
}

}  // namespace
}  // namespace quantmill
