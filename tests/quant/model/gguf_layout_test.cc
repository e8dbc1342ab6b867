#include "quant/model/gguf_layout.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

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
  EXPECT_EQ(Find(layout, "blk.1.attn_q.weight").order.rope_heads, 4);
  EXPECT_EQ(Find(layout, "blk.1.attn_k.weight").order.rope_heads, 2);  // not the heads of q
  EXPECT_EQ(Find(layout, "blk.1.attn_v.weight").order.rope_heads, 0);
  EXPECT_EQ(Find(layout, "blk.0.ffn_down.weight").linear.name, "model.layers.0.mlp.down_proj");
  std::vector<std::string> names;
  for (const GgufFloats& floats : layout.floats) {
    if (floats.name.starts_with("blk.1.")) names.push_back(floats.name);
    EXPECT_EQ(floats.order.rope_heads, floats.name.ends_with("attn_q.bias")   ? 4
                                       : floats.name.ends_with("attn_k.bias") ? 2
                                                                              : 0);
  }
  EXPECT_THAT(names,
              ElementsAre("blk.1.attn_norm.weight", "blk.1.attn_q.bias", "blk.1.attn_k.bias",
                          "blk.1.attn_v.bias", "blk.1.attn_output.bias", "blk.1.ffn_norm.weight"));
  EXPECT_EQ(layout.floats.back().name, "output_norm.weight");
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
  EXPECT_EQ(Find(qwen2, "blk.0.attn_q.weight").order.rope_heads, 0);
  nlohmann::json config = TinyConfig("Qwen3ForCausalLM");
  config["head_dim"] = 16;
  config["tie_word_embeddings"] = true;
  const GgufLayout qwen3 = Describe(config);
  EXPECT_EQ(std::get<uint32_t>(*Find(qwen3.metadata, "qwen3.attention.key_length")), 16u);
  EXPECT_EQ(qwen3.matrices.back().name, "blk.1.ffn_down.weight");
  EXPECT_EQ(qwen3.floats[1].name, "blk.0.attn_q_norm.weight");
}

nlohmann::json MixtureConfig(const std::string& architecture) {
  nlohmann::json config = TinyConfig(architecture);
  config["rope_theta"] = 10000.0;
  config["num_experts"] = config["num_local_experts"] = 3;
  config["num_experts_per_tok"] = 2;
  config["moe_intermediate_size"] = 16;
  config["shared_expert_intermediate_size"] = 48;
  config["norm_topk_prob"] = architecture == "Qwen3MoeForCausalLM";
  return config;
}

uint32_t Count(const GgufLayout& layout, const std::string& key) {
  const GgufValue* value = Find(layout.metadata, layout.architecture + "." + key);
  return value == nullptr ? 0 : std::get<uint32_t>(*value);
}

TEST(GgufLayout, ExpertsAreStacked) {
  const GgufLayout layout = Describe(MixtureConfig("MixtralForCausalLM"));
  EXPECT_EQ(layout.architecture, "llama");
  EXPECT_EQ(Count(layout, "expert_count"), 3u);
  EXPECT_EQ(Count(layout, "expert_used_count"), 2u);
  EXPECT_EQ(Count(layout, "feed_forward_length"), 64u);
  EXPECT_EQ(Find(layout.metadata, "llama.expert_feed_forward_length"), nullptr);
  EXPECT_EQ(Find(layout, "blk.0.attn_q.weight").order.rope_heads, 4);  // permuted as Llama's
  std::vector<std::string> experts;
  for (const GgufMatrix& matrix : layout.matrices) {
    if (matrix.name != "blk.1.ffn_down_exps.weight") continue;
    experts.push_back(matrix.linear.name);
    EXPECT_EQ(matrix.expert, std::ssize(experts) - 1);
    EXPECT_EQ(matrix.first_row(), 32 * matrix.expert);
    EXPECT_THAT(matrix.shape(), ElementsAre(3, 32, 64));
  }
  EXPECT_THAT(experts, ElementsAre("model.layers.1.block_sparse_moe.experts.0.w2",
                                   "model.layers.1.block_sparse_moe.experts.1.w2",
                                   "model.layers.1.block_sparse_moe.experts.2.w2"));
  EXPECT_EQ(Find(layout, "blk.0.ffn_gate_exps.weight").linear.name,
            "model.layers.0.block_sparse_moe.experts.0.w1");
  EXPECT_EQ(Find(layout, "blk.0.ffn_up_exps.weight").linear.name,
            "model.layers.0.block_sparse_moe.experts.0.w3");
}

const GgufFloats& FindFloats(const GgufLayout& layout, const std::string& name) {
  for (const GgufFloats& floats : layout.floats) {
    if (floats.name == name) return floats;
  }
  ADD_FAILURE() << name;
  return layout.floats.front();
}

TEST(GgufLayout, SharedExpertAndRouter) {
  const GgufLayout layout = Describe(MixtureConfig("Qwen2MoeForCausalLM"));
  EXPECT_EQ(layout.architecture, "qwen2moe");
  EXPECT_EQ(Count(layout, "feed_forward_length"), 64u);
  EXPECT_EQ(Count(layout, "expert_feed_forward_length"), 16u);
  EXPECT_EQ(Count(layout, "expert_shared_feed_forward_length"), 48u);
  EXPECT_EQ(Find(layout, "blk.0.ffn_up_shexp.weight").linear.name,
            "model.layers.0.mlp.shared_expert.up_proj");
  EXPECT_THAT(FindFloats(layout, "blk.1.ffn_gate_inp.weight").stored_shape(), ElementsAre(3, 32));
  const GgufFloats& gate = FindFloats(layout, "blk.1.ffn_gate_inp_shexp.weight");
  EXPECT_EQ(gate.source, "model.layers.1.mlp.shared_expert_gate.weight");
  EXPECT_THAT(gate.shape, ElementsAre(1, 32));
  EXPECT_THAT(gate.stored_shape(), ElementsAre(32));
}

TEST(GgufLayout, RefusesMixturesThatNoGraphHas) {
  nlohmann::json config = MixtureConfig("Qwen3MoeForCausalLM");
  EXPECT_EQ(Describe(config).architecture, "qwen3moe");
  config["norm_topk_prob"] = false;
  ExpectRefused(config, "norm_topk_prob");
  config = MixtureConfig("Qwen3MoeForCausalLM");
  config["mlp_only_layers"] = {1};
  ExpectRefused(config, "mlp_only_layers");
  config = MixtureConfig("Qwen2MoeForCausalLM");
  config["decoder_sparse_step"] = 2;
  ExpectRefused(config, "decoder_sparse_step");
  config = MixtureConfig("Qwen2MoeForCausalLM");
  config["tie_word_embeddings"] = true;
  ExpectRefused(config, "tie_word_embeddings");
  config = MixtureConfig("Qwen2MoeForCausalLM");
  config["head_dim"] = 16;
  ExpectRefused(config, "head_dim");
}

nlohmann::json GemmaConfig(const std::string& architecture, int64_t layers) {
  nlohmann::json config = TinyConfig(architecture);
  config["num_hidden_layers"] = layers;
  config["head_dim"] = config["query_pre_attn_scalar"] = 16;
  config["max_position_embeddings"] = 64;
  config["sliding_window"] = 24;
  return config;
}

TEST(GgufLayout, GemmaNamesGainsAndWindows) {
  const GgufLayout layout = Describe(GemmaConfig("Gemma2ForCausalLM", 3));
  EXPECT_EQ(layout.architecture, "gemma2");
  EXPECT_EQ(Count(layout, "context_length"), 64u);  // the graph has the windows
  EXPECT_EQ(Count(layout, "attention.sliding_window"), 24u);
  EXPECT_EQ(Find(layout.metadata, "gemma2.attention.sliding_window_pattern"), nullptr);
  EXPECT_EQ(std::get<float>(*Find(layout.metadata, "gemma2.attn_logit_softcapping")), 50);
  EXPECT_EQ(std::get<float>(*Find(layout.metadata, "gemma2.final_logit_softcapping")), 30);
  const std::pair<const char*, const char*> names[] = {
      {"attn_norm", "input_layernorm"},
      {"post_attention_norm", "post_attention_layernorm"},
      {"ffn_norm", "pre_feedforward_layernorm"},
      {"post_ffw_norm", "post_feedforward_layernorm"}};
  for (const auto& [ours, theirs] : names) {
    const GgufFloats& gain = FindFloats(layout, "blk.1." + std::string(ours) + ".weight");
    EXPECT_EQ(gain.source, "model.layers.1." + std::string(theirs) + ".weight");
    EXPECT_EQ(gain.added, 1);
  }
  EXPECT_EQ(layout.floats.back().added, 1);  // output_norm
  EXPECT_EQ(layout.matrices.back().name, "blk.2.ffn_down.weight");
}

TEST(GgufLayout, Gemma3SaysWhatIsNotUsual) {
  nlohmann::json config = GemmaConfig("Gemma3ForCausalLM", 7);
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8}};
  const GgufLayout usual = Describe(config);
  EXPECT_EQ(Find(usual.metadata, "gemma3.attention.sliding_window_pattern"), nullptr);
  EXPECT_EQ(Find(usual.metadata, "gemma3.rope.freq_base_swa"), nullptr);
  EXPECT_EQ(std::get<float>(*Find(usual.metadata, "gemma3.rope.freq_base")), 1e6f);
  EXPECT_EQ(std::get<float>(*Find(usual.metadata, "gemma3.rope.scaling.factor")), 8);
  EXPECT_EQ(FindFloats(usual, "blk.0.attn_q_norm.weight").added, 1);
  config["sliding_window_pattern"] = 3;
  config["rope_local_base_freq"] = 500;
  const GgufLayout own = Describe(config);
  EXPECT_EQ(Count(own, "attention.sliding_window_pattern"), 3u);
  EXPECT_EQ(std::get<float>(*Find(own.metadata, "gemma3.rope.freq_base_swa")), 500);
}

TEST(GgufLayout, RefusesGemmasThatNoFileCanSay) {
  nlohmann::json config = GemmaConfig("Gemma2ForCausalLM", 3);
  config["query_pre_attn_scalar"] = 24;
  ExpectRefused(config, "query_pre_attn_scalar");
  config["num_hidden_layers"] = 46;  // llama.cpp takes it for the model of 27B: 32 / 4
  config["query_pre_attn_scalar"] = 8;
  EXPECT_EQ(Describe(config).architecture, "gemma2");
  config = GemmaConfig("Gemma2ForCausalLM", 3);
  config["attn_logit_softcapping"] = nullptr;
  ExpectRefused(config, "soft");
  config = GemmaConfig("Gemma3ForCausalLM", 3);
  config["final_logit_softcapping"] = 30.0;
  ExpectRefused(config, "soft");
  config = GemmaConfig("Gemma3ForCausalLM", 3);
  config["tie_word_embeddings"] = false;
  ExpectRefused(config, "tie_word_embeddings");
  config = GemmaConfig("Gemma3ForCausalLM", 3);
  config["layer_types"] = {"sliding_attention", "full_attention", "full_attention"};
  ExpectRefused(config, "layer_types");
}

TEST(GgufLayout, Phi3KeepsFusedLayersAndFactors) {
  nlohmann::json config = TinyConfig("Phi3ForCausalLM");
  config["max_position_embeddings"] = 128;
  config["original_max_position_embeddings"] = 32;
  config["rope_scaling"] = {{"type", "longrope"},
                            {"short_factor", {1.0, 1.1, 1.3, 1.6}},
                            {"long_factor", {1.0, 1.7, 2.9, 4.0}}};
  const GgufLayout layout = Describe(config);
  EXPECT_EQ(Find(layout, "blk.0.attn_qkv.weight").linear.name, "model.layers.0.self_attn.qkv_proj");
  EXPECT_FALSE(Find(layout, "blk.0.attn_qkv.weight").order.moves());
  EXPECT_EQ(Find(layout, "blk.0.ffn_up.weight").linear.out, 128);
  EXPECT_EQ(Count(layout, "rope.scaling.original_context_length"), 32u);
  EXPECT_EQ(Count(layout, "attention.sliding_window"), 0u);
  // sqrt(1 + ln 4 / ln 32), ln 4 / ln 32 being 2 / 5.
  EXPECT_FLOAT_EQ(std::get<float>(*Find(layout.metadata, "phi3.rope.scaling.attn_factor")),
                  std::sqrt(1.4f));
  ASSERT_EQ(layout.tables.size(), 2u);
  EXPECT_EQ(layout.tables[0].name, "rope_factors_long.weight");
  EXPECT_THAT(layout.tables[1].values, ElementsAre(1.0f, 1.1f, 1.3f, 1.6f));
}

// Two groups of [2 rows of q, 1 of k, 1 of v].
TEST(GgufLayout, RegroupedRowsByHand) {
  const GgufRowOrder order{.rope_heads = 0, .runs = {{0, 2, 4, 2}, {2, 1, 4, 2}, {3, 1, 4, 2}}};
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < 8; ++row) rows.push_back(order.SourceOf(row, 8));
  EXPECT_THAT(rows, ElementsAre(0, 1, 4, 5, 2, 6, 3, 7));
}

TEST(GgufLayout, GroupsOfHeadsBecomeAllOfQThenKThenV) {
  const nlohmann::json falcon = {{"architectures", {"FalconForCausalLM"}},
                                 {"hidden_size", 8},
                                 {"num_hidden_layers", 1},
                                 {"num_attention_heads", 4},
                                 {"num_kv_heads", 2},
                                 {"new_decoder_architecture", true},
                                 {"vocab_size", 10}};
  const GgufLayout layout = Describe(falcon);
  EXPECT_EQ(layout.architecture, "falcon");
  const GgufRowOrder& order = Find(layout, "blk.0.attn_qkv.weight").order;
  // Each group: two heads of q, one of k, one of v, of 2 rows each.
  std::vector<int64_t> rows;
  for (int64_t row = 0; row < 16; ++row) rows.push_back(order.SourceOf(row, 16));
  EXPECT_THAT(rows, ElementsAre(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15));
  EXPECT_EQ(FindFloats(layout, "blk.0.attn_norm.weight").source, "transformer.h.0.ln_mlp.weight");
  EXPECT_EQ(FindFloats(layout, "blk.0.attn_norm_2.bias").source, "transformer.h.0.ln_attn.bias");
}

TEST(GgufLayout, TablesAndNormsAroundTheBlocks) {
  const nlohmann::json gpt2 = {{"architectures", {"GPT2LMHeadModel"}},
                               {"n_embd", 8},
                               {"n_layer", 1},
                               {"n_head", 2},
                               {"n_positions", 6},
                               {"vocab_size", 10}};
  const GgufLayout layout = Describe(gpt2);
  const GgufFloats& positions = FindFloats(layout, "position_embd.weight");
  EXPECT_EQ(positions.source, "transformer.wpe.weight");
  EXPECT_THAT(positions.shape, ElementsAre(6, 8));
  EXPECT_TRUE(Find(layout, "blk.0.ffn_up.weight").linear.transposed);
  EXPECT_FALSE(Find(layout, "blk.0.attn_qkv.weight").order.moves());
  const nlohmann::json bloom = {{"architectures", {"BloomForCausalLM"}},
                                {"hidden_size", 8},
                                {"n_layer", 1},
                                {"n_head", 2},
                                {"vocab_size", 10}};
  const GgufLayout norms = Describe(bloom);
  EXPECT_EQ(FindFloats(norms, "token_embd_norm.bias").source,
            "transformer.word_embeddings_layernorm.bias");
  EXPECT_TRUE(FindFloats(norms, "blk.0.attn_qkv.bias").order.moves());
  EXPECT_EQ(Find(norms.metadata, "bloom.rope.freq_base"), nullptr);
}

TEST(GgufLayout, RefusesFalconAndNeoxOfOtherGraphs) {
  nlohmann::json falcon = {{"architectures", {"FalconForCausalLM"}},
                           {"hidden_size", 8},
                           {"num_hidden_layers", 1},
                           {"num_attention_heads", 4},
                           {"vocab_size", 10}};
  EXPECT_EQ(Describe(falcon).architecture, "falcon");
  falcon["parallel_attn"] = false;
  ExpectRefused(falcon, "parallel_attn");
  falcon["parallel_attn"] = true;
  falcon["alibi"] = true;
  ExpectRefused(falcon, "alibi");
  nlohmann::json neox = TinyConfig("GPTNeoXForCausalLM");
  EXPECT_EQ(Describe(neox).architecture, "gptneox");
  neox["attention_bias"] = false;
  ExpectRefused(neox, "attention_bias");
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
  ASSERT_EQ(llama3.tables.size(), 1u);
  EXPECT_EQ(llama3.tables[0].name, "rope_freqs.weight");
  const std::vector<float>& divisors = llama3.tables[0].values;
  ASSERT_EQ(divisors.size(), 64u);
  EXPECT_EQ(divisors[28], 1);
  EXPECT_NEAR(divisors[32], 1.41421356e-3 / 5.24846e-4, 1e-4);
  EXPECT_EQ(divisors[40], 8);
  config["architectures"] = {"Qwen2ForCausalLM"};  // its graph has no such tensor
  ExpectRefused(config, "llama3");
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
