#include "quant/model/folding.h"

#include <gtest/gtest.h>

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

BlockFolding SmallFolding() {
  BlockFolding folding;
  folding.at(Site::kAttentionIn) = {ToBF16(1), ToBF16(0.5f), ToBF16(3)};
  folding.at(Site::kAttentionOut) = {ToBF16(1), ToBF16(2), ToBF16(4), ToBF16(8)};
  return folding;
}

TEST(FoldingTest, WidthsAndSharedHeads) {
  const DecoderSpec spec = SmallSpec();
  EXPECT_EQ(FoldedWidth(spec, Site::kAttentionIn), 3);
  EXPECT_EQ(FoldedWidth(spec, Site::kAttentionOut), 4);
  EXPECT_EQ(FoldedWidth(spec, Site::kMlpIn), 3);
  EXPECT_EQ(FoldedWidth(spec, Site::kMlpOut), 5);
  // Query heads 0 and 1 read key-value head 0, heads 2 and 3 read 1.
  const std::vector<int64_t> want = {0, 1, 0, 1, 2, 3, 2, 3};
  for (int64_t column = 0; column < 8; ++column) {
    EXPECT_EQ(FoldedIndex(spec, Site::kAttentionOut, column), want[static_cast<size_t>(column)]);
  }
  EXPECT_EQ(FoldedIndex(spec, Site::kMlpOut, 4), 4);
}

TEST(FoldingTest, RecordIsSpelledAndReadBack) {
  const nlohmann::json json = FoldingJson(SmallFolding());
  EXPECT_EQ(json, (nlohmann::json{{"attention_in", "3f803f004040"},
                                  {"attention_out", "3f80400040804100"}}));
  EXPECT_EQ(ParseFolding(json, SmallSpec(), "file"), SmallFolding());
  EXPECT_EQ(FoldingJson({}), nlohmann::json::object());
  EXPECT_TRUE(ParseFolding(nlohmann::json::object(), SmallSpec(), "file").identity());
  EXPECT_FALSE(SmallFolding().identity());
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
  };
  for (const nlohmann::json& json : damaged) {
    try {
      ParseFolding(json, SmallSpec(), "quantmill.json");
      ADD_FAILURE() << json;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput) << json;
      EXPECT_EQ(error.where(), "quantmill.json");
    }
  }
}

}  // namespace
}  // namespace quantmill
