#include "quant/model/decoder_spec.h"

#include <gtest/gtest.h>

namespace quantmill {
namespace {

// Four query heads of 3, two key-value heads.
BlockSpec TwoKvHeads() {
  BlockSpec block;
  block.query = {"q", 12, 5, true};
  block.key = {"k", 6, 5, true};
  block.value = {"v", 6, 5, true};
  block.output = {"o", 5, 12, false};
  block.gate = {"gate", 7, 5, false};
  block.up = {"up", 7, 5, false};
  block.down = {"down", 5, 7, false};
  return block;
}

std::vector<int64_t> RowsOf(const StoredRows& stored) {
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < stored.rows.rows(); ++i) rows.push_back(stored.rows.Row(i));
  return rows;
}

std::vector<std::string> NamesOf(const std::vector<const LinearSpec*>& linears) {
  std::vector<std::string> names;
  for (const LinearSpec* linear : linears) names.push_back(linear->name);
  return names;
}

using Rows = std::vector<int64_t>;

TEST(DecoderSpec, LinearsStoredApartHaveAllTheirRows) {
  const BlockSpec block = TwoKvHeads();
  EXPECT_EQ(NamesOf(block.Linears()),
            (std::vector<std::string>{"q", "k", "v", "o", "gate", "up", "down"}));
  const StoredRows key = block.Stored(block.key);
  EXPECT_EQ(key.linear, &block.key);
  EXPECT_EQ(RowsOf(key), (Rows{0, 1, 2, 3, 4, 5}));
}

TEST(DecoderSpec, QueryKeyValueOneAfterTheOther) {
  BlockSpec block = TwoKvHeads();
  block.FuseQueryKeyValue("qkv", 1);
  EXPECT_EQ(NamesOf(block.LinearsAt(Site::kAttentionIn)), (std::vector<std::string>{"qkv"}));
  EXPECT_EQ(block.query_key_value.out, 24);
  EXPECT_EQ(block.query_key_value.in, 5);
  EXPECT_TRUE(block.query_key_value.bias);
  EXPECT_EQ(block.Stored(block.query).linear, &block.query_key_value);
  EXPECT_EQ(RowsOf(block.Stored(block.query)), (Rows{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(RowsOf(block.Stored(block.key)), (Rows{12, 13, 14, 15, 16, 17}));
  EXPECT_EQ(RowsOf(block.Stored(block.value)), (Rows{18, 19, 20, 21, 22, 23}));
}

// [q q k v] for each key-value head, three rows each.
TEST(DecoderSpec, QueryKeyValueByKeyValueHead) {
  BlockSpec block = TwoKvHeads();
  block.FuseQueryKeyValue("qkv", 2);
  EXPECT_EQ(RowsOf(block.Stored(block.query)), (Rows{0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17}));
  EXPECT_EQ(RowsOf(block.Stored(block.key)), (Rows{6, 7, 8, 18, 19, 20}));
  EXPECT_EQ(RowsOf(block.Stored(block.value)), (Rows{9, 10, 11, 21, 22, 23}));
}

TEST(DecoderSpec, GateAndUp) {
  BlockSpec block = TwoKvHeads();
  block.FuseGateUp("gate_up");
  EXPECT_EQ(NamesOf(block.Linears()),
            (std::vector<std::string>{"q", "k", "v", "o", "gate_up", "down"}));
  EXPECT_EQ(RowsOf(block.Stored(block.gate)), (Rows{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(RowsOf(block.Stored(block.up)), (Rows{7, 8, 9, 10, 11, 12, 13}));
  EXPECT_EQ(NamesOf(block.PartsAt(Site::kMlpIn)), (std::vector<std::string>{"", ""}));
}

TEST(RowRuns, ContainsWhatItLists) {
  for (const RowRuns& runs : {RowRuns{2, 3, 3, 1}, RowRuns{0, 4, 4, 1}, RowRuns{1, 2, 5, 3}}) {
    for (int64_t row = 0; row < 20; ++row) {
      bool listed = false;
      for (int64_t i = 0; i < runs.rows(); ++i) listed |= runs.Row(i) == row;
      EXPECT_EQ(runs.Contains(row), listed) << row;
    }
  }
}

}  // namespace
}  // namespace quantmill
