#include "quant/model/gguf_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/core/error.h"
#include "quant/model/families.h"

namespace quantmill {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

nlohmann::json TinyConfig(const std::string& architecture) {
  return {{"architectures", {architecture}}, {"hidden_size", 32},        {"intermediate_size", 64},
          {"num_hidden_layers", 2},          {"num_attention_heads", 4}, {"vocab_size", 100},
          {"num_key_value_heads", 2},        {"rms_norm_eps", 1e-5}};
}

GgufLayout Describe(const nlohmann::json& config) {
  return DescribeGguf(DescribeDecoder(config, "config.json"), ConfigReader(config, "config.json"));
}

const GgufMatrix& Find(const GgufLayout& layout, const std::string& name) {
  for (const GgufMatrix& matrix : layout.matrices) {
    if (matrix.name == name) return matrix;
  }
  ADD_FAILURE() << name;
  return layout.matrices.front();
}

const GgufValue* Find(const std::vector<GgufEntry>& metadata, const std::string& key) {
  for (const GgufEntry& entry : metadata) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

void ExpectRefused(const nlohmann::json& config, const std::string& word) {
  try {
    Describe(config);
    ADD_FAILURE() << "not refused: " << word;
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_THAT(error.what(), HasSubstr(word));
  }
}

// A head of 8: neighbours of the file are halves of the checkpoint.
TEST(GgufLayout, RowsOfQueryAndKeyByHand) {
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < 16; ++row) rows.push_back(RopeRow(row, 16, 2));
  EXPECT_THAT(rows, ElementsAre(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15));
  EXPECT_EQ(RopeRow(5, 16, 0), 5);
}

TEST(GgufLayout, LlamaNamesAndHeads) {
  nlohmann::json config = TinyConfig("LlamaForCausalLM");
  config["attention_bias"] = true;
  const GgufLayout layout = Describe(config);
  EXPECT_EQ(layout.architecture, "llama");
  ASSERT_EQ(layout.matrices.size(), 2u + 2 * 7);
  EXPECT_EQ(layout.matrices.front().name, "token_embd.weight");
  EXPECT_EQ(layout.matrices.back().name, "output.weight");
  EXPECT_EQ(Find(layout, "blk.1.attn_q.weight").linear.name, "model.layers.1.self_attn.q_proj");
  EXPECT_EQ(Find(layout, "blk.1.attn_q.weight").heads, 4);
  EXPECT_EQ(Find(layout, "blk.1.attn_k.weight").heads, 2);  // not the heads of q
  EXPECT_EQ(Find(layout, "blk.1.attn_v.weight").heads, 0);
  EXPECT_EQ(Find(layout, "blk.0.ffn_down.weight").linear.name, "model.layers.0.mlp.down_proj");
  std::vector<std::string> names;
  for (const GgufVector& vector : layout.vectors) {
    if (vector.name.starts_with("blk.1.")) names.push_back(vector.name);
    EXPECT_EQ(vector.heads, vector.name.ends_with("attn_q.bias")   ? 4
                            : vector.name.ends_with("attn_k.bias") ? 2
                                                                   : 0);
  }
  EXPECT_THAT(names,
              ElementsAre("blk.1.attn_norm.weight", "blk.1.attn_q.bias", "blk.1.attn_k.bias",
                          "blk.1.attn_v.bias", "blk.1.attn_output.bias", "blk.1.ffn_norm.weight"));
  EXPECT_EQ(layout.vectors.back().name, "output_norm.weight");
}

TEST(GgufLayout, Metadata) {
  const GgufLayout layout = Describe(TinyConfig("MistralForCausalLM"));
  const auto number = [&](const std::string& key) {
    const GgufValue* value = Find(layout.metadata, "llama." + key);
    return value == nullptr ? -1 : static_cast<int64_t>(std::get<uint32_t>(*value));
  };
  EXPECT_EQ(number("context_length"), 2048);
  EXPECT_EQ(number("embedding_length"), 32);
  EXPECT_EQ(number("block_count"), 2);
  EXPECT_EQ(number("feed_forward_length"), 64);
  EXPECT_EQ(number("attention.head_count"), 4);
  EXPECT_EQ(number("attention.head_count_kv"), 2);
  EXPECT_EQ(number("attention.key_length"), 8);
  EXPECT_EQ(number("rope.dimension_count"), 8);
  EXPECT_EQ(std::get<float>(*Find(layout.metadata, "llama.rope.freq_base")), 10000);
  EXPECT_EQ(std::get<float>(*Find(layout.metadata, "llama.attention.layer_norm_rms_epsilon")),
            1e-5f);
}

TEST(GgufLayout, QwenKeepsItsRows) {
  const GgufLayout qwen2 = Describe(TinyConfig("Qwen2ForCausalLM"));
  EXPECT_EQ(qwen2.architecture, "qwen2");
  EXPECT_EQ(Find(qwen2, "blk.0.attn_q.weight").heads, 0);
  nlohmann::json config = TinyConfig("Qwen3ForCausalLM");
  config["head_dim"] = 16;
  config["tie_word_embeddings"] = true;
  const GgufLayout qwen3 = Describe(config);
  EXPECT_EQ(std::get<uint32_t>(*Find(qwen3.metadata, "qwen3.attention.key_length")), 16u);
  EXPECT_EQ(qwen3.matrices.back().name, "blk.1.ffn_down.weight");
  EXPECT_EQ(qwen3.vectors[1].name, "blk.0.attn_q_norm.weight");
}

TEST(GgufLayout, RopeScaling) {
  nlohmann::json config = TinyConfig("LlamaForCausalLM");
  config["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
  EXPECT_EQ(std::get<float>(*Find(Describe(config).metadata, "llama.rope.scaling.factor")), 4);
  // formats.md section 8.1: dimensions 28, 32 and 40 of 64.
  config["head_dim"] = 128;
  config["rope_theta"] = 5e5;
  config["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8},
                            {"low_freq_factor", 1},
                            {"high_freq_factor", 4},
                            {"original_max_position_embeddings", 8192}};
  const GgufLayout llama3 = Describe(config);
  EXPECT_EQ(Find(llama3.metadata, "llama.rope.scaling.type"), nullptr);
  ASSERT_EQ(llama3.rope_divisors.size(), 64u);
  EXPECT_EQ(llama3.rope_divisors[28], 1);
  EXPECT_NEAR(llama3.rope_divisors[32], 1.41421356e-3 / 5.24846e-4, 1e-4);
  EXPECT_EQ(llama3.rope_divisors[40], 8);
}

TEST(GgufLayout, RefusesWhatTheGraphLacks) {
  nlohmann::json config = TinyConfig("LlamaForCausalLM");
  config["hidden_act"] = "gelu";
  ExpectRefused(config, "silu");
  config = TinyConfig("Qwen3ForCausalLM");
  config["attention_bias"] = true;
  ExpectRefused(config, "bias");
  config = TinyConfig("LlamaForCausalLM");
  config["partial_rotary_factor"] = 0.5;
  ExpectRefused(config, "partial_rotary_factor");
}

TEST(GgufLayout, ASlidingWindowBoundsTheContext) {
  nlohmann::json config = TinyConfig("MistralForCausalLM");
  config["sliding_window"] = 512;
  EXPECT_EQ(std::get<uint32_t>(*Find(Describe(config).metadata, "llama.context_length")), 512u);
}

}  // namespace
}  // namespace quantmill
