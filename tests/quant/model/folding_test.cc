#include "quant/model/folding.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

DecoderSpec SmallSpec() {
  DecoderSpec spec;
  spec.hidden = 3;
  spec.ffn = 5;
  spec.heads = 4;
  spec.kv_heads = 2;
  spec.head_dim = 2;
  return spec;
}

// As Llama's, each half has a norm and the MLP a gate; and two experts.
BlockSpec SmallBlock() {
  BlockSpec block;
  block.attention_norm = "a";
  block.mlp_norm = "m";
  block.query = {"q", 8, 3, false};
  block.output = {"o", 3, 8, false};
  block.gate = {"gate", 5, 3, false};
  block.up = {"up", 5, 3, false};
  block.down = {"down", 3, 5, false};
  for (const char* name : {"e0", "e1"}) {
    block.mixture.experts.push_back({{std::string(name) + ".gate", 2, 3, false},
                                     {std::string(name) + ".up", 2, 3, false},
                                     {std::string(name) + ".down", 3, 2, false}});
  }
  return block;
}

BlockFolding SmallFolding() {
  BlockFolding folding;
  folding.at(Site::kAttentionIn) = {ToBF16(1), ToBF16(0.5f), ToBF16(3)};
  folding.at(Site::kAttentionOut) = {ToBF16(1), ToBF16(2), ToBF16(4), ToBF16(8)};
  return folding;
}

TEST(FoldingTest, WidthsAndSharedHeads) {
  const DecoderSpec spec = SmallSpec();
  const BlockSpec block = SmallBlock();
  EXPECT_EQ(FoldedWidth(spec, block, Site::kAttentionIn), 3);
  EXPECT_EQ(FoldedWidth(spec, block, Site::kAttentionOut), 4);
  EXPECT_EQ(FoldedWidth(spec, block, Site::kMlpIn), 3);
  EXPECT_EQ(FoldedWidth(spec, block, Site::kMlpOut), 5);
  EXPECT_EQ(FoldedWidth(spec, block, {Site::kMlpOut, 1}), 2);
  // Query heads 0 and 1 read key-value head 0, heads 2 and 3 read 1.
  const std::vector<int64_t> want = {0, 1, 0, 1, 2, 3, 2, 3};
  for (int64_t column = 0; column < 8; ++column) {
    EXPECT_EQ(FoldedIndex(spec, Site::kAttentionOut, column), want[static_cast<size_t>(column)]);
  }
  EXPECT_EQ(FoldedIndex(spec, Site::kMlpOut, 4), 4);
}

TEST(FoldingTest, WhatElseReadsANormOrDoesNotScaleIsNotFolded) {
  const auto foldable = [](const DecoderSpec& spec, const BlockSpec& block) {
    std::string sites;
    for (const Site site : kSites) sites += IsFoldable(spec, block, site) ? '1' : '0';
    return sites;
  };
  DecoderSpec spec = SmallSpec();
  BlockSpec block = SmallBlock();
  EXPECT_EQ(foldable(spec, block), "1111");
  spec.order = BlockOrder::kPostNorm;
  EXPECT_EQ(foldable(spec, block), "0101");
  spec.order = BlockOrder::kParallel;
  EXPECT_EQ(foldable(spec, block), "1111");
  block.mlp_norm = block.attention_norm;
  EXPECT_EQ(foldable(spec, block), "0101");
  block.gate = {};
  spec.activation = Activation::kGelu;
  EXPECT_EQ(foldable(spec, block), "0100");
  spec.activation = Activation::kRelu;
  EXPECT_EQ(foldable(spec, block), "0101");
  const nlohmann::json json = {{"attention_in", "3f803f004040"}};
  EXPECT_THROW(ParseFolding(json, spec, block, "file"), Error);
}

TEST(FoldingTest, RecordIsSpelledAndReadBack) {
  const nlohmann::json json = FoldingJson(SmallFolding());
  EXPECT_EQ(json, (nlohmann::json{{"attention_in", "3f803f004040"},
                                  {"attention_out", "3f80400040804100"}}));
  EXPECT_EQ(ParseFolding(json, SmallSpec(), SmallBlock(), "file"), SmallFolding());
  EXPECT_EQ(FoldingJson({}), nlohmann::json::object());
  EXPECT_TRUE(ParseFolding(nlohmann::json::object(), SmallSpec(), SmallBlock(), "file").identity());
  EXPECT_FALSE(SmallFolding().identity());
}

TEST(FoldingTest, ExpertsHaveTheirOwn) {
  BlockFolding folding;
  folding.at({Site::kMlpOut, 1}) = {ToBF16(2), ToBF16(1)};
  EXPECT_FALSE(folding.identity());
  EXPECT_TRUE(std::as_const(folding).at({Site::kMlpOut, 0}).empty());
  EXPECT_TRUE(std::as_const(folding).at(Site::kMlpOut).empty());
  const nlohmann::json json = FoldingJson(folding);
  EXPECT_EQ(json, (nlohmann::json{{"mlp_out.1", "40003f80"}}));
  EXPECT_EQ(ParseFolding(json, SmallSpec(), SmallBlock(), "file"), folding);
}

TEST(FoldingTest, DamagedRecordIsRefused) {
  const std::vector<nlohmann::json> damaged = {
      nlohmann::json::array(),
      {{"attention", "3f803f004040"}},
      {{"attention_in", "3f803f0040400000"}},  // one too many
      {{"attention_in", "3f803f0040"}},
      {{"attention_in", ""}},
      {{"attention_in", 7}},
      {{"attention_in", "3f803f00404g"}},
      {{"attention_in", "3f803f00 040"}},
      {{"attention_in", "3f80-f004040"}},
      {{"attention_in", "3f803f000000"}},  // 0
      {{"attention_in", "3f803f007f80"}},  // infinity
      {{"attention_in", "3f803f007fc0"}},  // NaN
      {{"attention_in", "3f803f00bf80"}},  // -1
      {{"mlp_out.2", "3f803f80"}},         // there are two experts
      {{"mlp_out.1", "3f803f803f80"}},
  };
  for (const nlohmann::json& json : damaged) {
    try {
      ParseFolding(json, SmallSpec(), SmallBlock(), "quantmill.json");
      ADD_FAILURE() << json;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput) << json;
      EXPECT_EQ(error.where(), "quantmill.json");
    }
  }
}

}  // namespace
}  // namespace quantmill
