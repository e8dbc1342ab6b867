#include "quant/model/families.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "quant/model/plain_layout.h"

namespace quantmill {
namespace {

nlohmann::json TinyConfig(const std::string& architecture) {
  return {{"architectures", {architecture}}, {"hidden_size", 32},        {"intermediate_size", 64},
          {"num_hidden_layers", 3},          {"num_attention_heads", 4}, {"vocab_size", 100},
          {"num_key_value_heads", 2}};
}

DecoderSpec Describe(const nlohmann::json& config) {
  return DescribeDecoder(config, "config.json");
}

std::string ErrorOf(const nlohmann::json& config) {
  try {
    Describe(config);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    return error.what();
  }
  return "";
}

TEST(Families, LlamaNamesAndShapes) {
  const DecoderSpec spec = Describe(TinyConfig("LlamaForCausalLM"));
  ASSERT_EQ(spec.layers(), 3);
  const BlockSpec& block = spec.blocks[2];
  EXPECT_EQ(block.query.name, "model.layers.2.self_attn.q_proj");
  EXPECT_EQ(block.key.out, 2 * 8);
  EXPECT_EQ(block.down.in, 64);
  EXPECT_FALSE(block.query.bias);
  EXPECT_EQ(block.sliding_window, 0);
  EXPECT_EQ(spec.head_dim, 8);
  EXPECT_FALSE(spec.tied);
  EXPECT_EQ(spec.Linears().size(), 3u * 7);
}

TEST(Families, EverySiteListsEachLinearOnce) {
  const DecoderSpec spec = Describe(TinyConfig("LlamaForCausalLM"));
  std::vector<const LinearSpec*> by_site;
  for (const Site site : kSites) {
    const auto linears = spec.blocks[0].LinearsAt(site);
    for (const LinearSpec* linear : linears) EXPECT_EQ(linear->in, linears.front()->in);
    by_site.insert(by_site.end(), linears.begin(), linears.end());
  }
  EXPECT_EQ(by_site, spec.blocks[0].Linears());
}

TEST(Families, Biases) {
  nlohmann::json llama = TinyConfig("LlamaForCausalLM");
  llama["attention_bias"] = true;
  EXPECT_TRUE(Describe(llama).blocks[0].output.bias);
  EXPECT_FALSE(Describe(llama).blocks[0].gate.bias);
  const DecoderSpec qwen2 = Describe(TinyConfig("Qwen2ForCausalLM"));
  EXPECT_TRUE(qwen2.blocks[0].value.bias);
  EXPECT_FALSE(qwen2.blocks[0].output.bias);
}

TEST(Families, Phi3StoresQueryKeyValueAndGateUpAsOne) {
  nlohmann::json config = TinyConfig("Phi3ForCausalLM");
  config["sliding_window"] = 5;
  const DecoderSpec spec = Describe(config);
  const BlockSpec& block = spec.blocks[2];
  std::vector<std::string> names;
  for (const LinearSpec* linear : block.Linears()) names.push_back(linear->name);
  const std::string prefix = "model.layers.2.";
  EXPECT_EQ(names,
            (std::vector<std::string>{prefix + "self_attn.qkv_proj", prefix + "self_attn.o_proj",
                                      prefix + "mlp.gate_up_proj", prefix + "mlp.down_proj"}));
  EXPECT_EQ(block.query_key_value.out, 32 + 2 * 16);
  EXPECT_EQ(block.gate_up.out, 2 * 64);
  EXPECT_EQ(block.gate_up.in, 32);
  EXPECT_EQ(block.sliding_window, 5);
}

nlohmann::json GemmaConfig(const std::string& architecture) {
  nlohmann::json config = TinyConfig(architecture);
  config["head_dim"] = 16;
  config["max_position_embeddings"] = 8192;
  config["num_hidden_layers"] = 6;
  return config;
}

std::vector<int64_t> Windows(const nlohmann::json& config) {
  std::vector<int64_t> windows;
  for (const BlockSpec& block : Describe(config).blocks) windows.push_back(block.sliding_window);
  return windows;
}

TEST(Families, Gemma2DefaultsAreTheClasss) {
  nlohmann::json config = GemmaConfig("Gemma2ForCausalLM");
  const DecoderSpec spec = Describe(config);
  EXPECT_TRUE(spec.tied);
  EXPECT_EQ(spec.attention_softcap, 50);
  EXPECT_EQ(spec.logit_softcap, 30);
  EXPECT_EQ(spec.attention_scale, 1.0f / 16);
  EXPECT_EQ(spec.activation, Activation::kGeluTanh);
  EXPECT_EQ(spec.blocks[1].mlp_norm, "model.layers.1.pre_feedforward_layernorm.weight");
  EXPECT_EQ(Windows(config), (std::vector<int64_t>{4096, 0, 4096, 0, 4096, 0}));
  config["attn_logit_softcapping"] = nullptr;  // unlike a key that is absent
  EXPECT_EQ(Describe(config).attention_softcap, 0);
  config.erase("head_dim");
  EXPECT_NE(ErrorOf(config).find("head_dim"), std::string::npos);
}

TEST(Families, Gemma3HasTwoRopes) {
  nlohmann::json config = GemmaConfig("Gemma3ForCausalLM");
  config["sliding_window"] = 512;
  config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  const DecoderSpec spec = Describe(config);
  EXPECT_EQ(spec.attention_softcap, 0);
  EXPECT_EQ(Windows(config), (std::vector<int64_t>{512, 512, 512, 512, 512, 0}));
  EXPECT_FLOAT_EQ(spec.rope.inv_freq[1], std::pow(1e6f, -1.0f / 8) / 8);
  EXPECT_FLOAT_EQ(spec.window_rope.inv_freq[1], std::pow(1e4f, -1.0f / 8));
  // The same as transformers 5 writes it.
  nlohmann::json nested = GemmaConfig("Gemma3ForCausalLM");
  nested["sliding_window"] = 512;
  nested["rope_parameters"] = {
      {"full_attention", {{"rope_type", "linear"}, {"factor", 8.0}, {"rope_theta", 1e6}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 1e4}}}};
  EXPECT_EQ(Describe(nested).rope.inv_freq, spec.rope.inv_freq);
  EXPECT_EQ(Describe(nested).window_rope.inv_freq, spec.window_rope.inv_freq);
  config["use_bidirectional_attention"] = true;
  EXPECT_NE(ErrorOf(config).find("use_bidirectional_attention"), std::string::npos);
}

TEST(Families, HeadDimMayBeExplicitOrNull) {
  nlohmann::json config = TinyConfig("Qwen3ForCausalLM");
  config["head_dim"] = 16;
  EXPECT_EQ(Describe(config).blocks[0].query.out, 64);
  EXPECT_EQ(Describe(config).blocks[0].query_norm, "model.layers.0.self_attn.q_norm.weight");
  config["head_dim"] = nullptr;
  EXPECT_EQ(Describe(config).head_dim, 8);
}

TEST(Families, SlidingWindows) {
  nlohmann::json mistral = TinyConfig("MistralForCausalLM");
  mistral["sliding_window"] = 5;
  EXPECT_EQ(Describe(mistral).blocks[0].sliding_window, 5);
  mistral["sliding_window"] = nullptr;
  EXPECT_EQ(Describe(mistral).blocks[0].sliding_window, 0);

  nlohmann::json qwen = TinyConfig("Qwen2ForCausalLM");
  qwen["sliding_window"] = 5;
  EXPECT_EQ(Describe(qwen).blocks[2].sliding_window, 0) << "use_sliding_window defaults to false";
  qwen["use_sliding_window"] = true;
  qwen["max_window_layers"] = 2;
  EXPECT_EQ(Describe(qwen).blocks[1].sliding_window, 0);
  EXPECT_EQ(Describe(qwen).blocks[2].sliding_window, 5);
  qwen["layer_types"] = {"sliding_attention", "full_attention", "full_attention"};
  EXPECT_EQ(Describe(qwen).blocks[0].sliding_window, 5);
  EXPECT_EQ(Describe(qwen).blocks[2].sliding_window, 0);
  qwen["layer_types"] = {"sliding_attention"};
  EXPECT_NE(ErrorOf(qwen).find("layer_types"), std::string::npos);
}

nlohmann::json OptConfig() {
  return {{"architectures", {"OPTForCausalLM"}},
          {"hidden_size", 32},
          {"ffn_dim", 64},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 4},
          {"vocab_size", 100},
          {"max_position_embeddings", 40},
          {"word_embed_proj_dim", 16},
          {"do_layer_norm_before", false}};
}

TEST(Families, Opt) {
  DecoderSpec spec = Describe(OptConfig());
  EXPECT_EQ(spec.order, BlockOrder::kPostNorm);
  EXPECT_EQ(spec.final_norm, "");
  EXPECT_EQ(spec.embedding_width(), 16);
  EXPECT_EQ(spec.lm_head.in, 16);
  EXPECT_EQ(spec.position_offset, 2);
  EXPECT_EQ(spec.Projections().size(), 2u);
  EXPECT_FALSE(spec.blocks[0].gated());
  EXPECT_EQ(spec.blocks[0].Linears().size(), 6u);
  EXPECT_EQ(spec.blocks[1].up.name, "model.decoder.layers.1.fc1");
  const std::vector<std::string> head = {"lm_head"};
  EXPECT_EQ(spec.LoaderNames(head), head);
  spec.DropBasePrefix();
  EXPECT_EQ(spec.blocks[1].up.name, "decoder.layers.1.fc1");
  EXPECT_EQ(spec.blocks[1].mlp_norm_bias, "decoder.layers.1.final_layer_norm.bias");
  EXPECT_EQ(spec.project_in.name, "decoder.project_in");
  EXPECT_EQ(spec.lm_head.name, "lm_head");
  EXPECT_EQ(spec.LoaderNames({"decoder.project_in"}),
            (std::vector<std::string>{"decoder.project_in", "model.decoder.project_in"}));
}

// How q, k and v lie in one linear differs by the generation.
TEST(Families, FalconsLayouts) {
  nlohmann::json config = {{"architectures", {"FalconForCausalLM"}},
                           {"hidden_size", 32},
                           {"num_hidden_layers", 1},
                           {"num_attention_heads", 4},
                           {"vocab_size", 100},
                           {"num_kv_heads", 2}};
  const DecoderSpec first = Describe(config);
  EXPECT_EQ(first.kv_heads, 1);  // whatever num_kv_heads says
  EXPECT_EQ(first.blocks[0].query_key_value.out, 32 + 2 * 8);
  EXPECT_EQ(first.blocks[0].attention_norm, first.blocks[0].mlp_norm);
  EXPECT_EQ(first.order, BlockOrder::kParallel);
  config["new_decoder_architecture"] = true;
  const DecoderSpec second = Describe(config);
  EXPECT_EQ(second.kv_heads, 2);
  EXPECT_EQ(second.blocks[0].query_key_value_groups, 2);
  EXPECT_EQ(second.blocks[0].mlp_norm, "transformer.h.0.ln_mlp.weight");
  config["parallel_attn"] = false;
  EXPECT_NE(ErrorOf(config).find("parallel_attn"), std::string::npos);
  config["new_decoder_architecture"] = false;
  config["multi_query"] = false;
  config["alibi"] = true;
  const DecoderSpec rw = Describe(config);
  EXPECT_EQ(rw.kv_heads, 4);
  EXPECT_EQ(rw.blocks[0].query_key_value_groups, 4);
  EXPECT_EQ(rw.rope.rotary_dim, 0);
  EXPECT_FLOAT_EQ(rw.alibi_slopes[0], 0.25f / std::sqrt(8.0f));
}

// Press et al.'s own: 2^-1 ... 2^-8 for 8 heads; 12 take four from 16's.
TEST(Families, AlibiSlopes) {
  EXPECT_EQ(AlibiSlopes(8),
            (std::vector<float>{0.5f, 0.25f, 0.125f, 0x1p-4f, 0x1p-5f, 0x1p-6f, 0x1p-7f, 0x1p-8f}));
  const std::vector<float> twelve = AlibiSlopes(12);
  ASSERT_EQ(twelve.size(), 12u);
  EXPECT_EQ(twelve[7], 0x1p-8f);
  EXPECT_FLOAT_EQ(twelve[8], std::exp2(-0.5f));
  EXPECT_FLOAT_EQ(twelve[11], std::exp2(-3.5f));
}

TEST(Families, WhatIsNotComputedIsRefused) {
  nlohmann::json gpt2 = {{"architectures", {"GPT2LMHeadModel"}},
                         {"n_embd", 32},
                         {"n_head", 4},
                         {"n_layer", 1},
                         {"vocab_size", 100}};
  EXPECT_EQ(Describe(gpt2).blocks[0].up.stored_shape(), (std::vector<int64_t>{32, 128}));
  gpt2["scale_attn_by_inverse_layer_idx"] = true;
  EXPECT_NE(ErrorOf(gpt2).find("scale_attn_by_inverse_layer_idx"), std::string::npos);
  nlohmann::json opt = OptConfig();
  opt["layer_norm_elementwise_affine"] = false;
  EXPECT_NE(ErrorOf(opt).find("layer_norm_elementwise_affine"), std::string::npos);
  opt = OptConfig();
  opt["num_attention_heads"] = 5;
  EXPECT_NE(ErrorOf(opt).find("num_attention_heads"), std::string::npos);
  nlohmann::json bloom = {{"architectures", {"BloomForCausalLM"}},
                          {"n_embed", 32},
                          {"n_head", 4},
                          {"n_layer", 1},
                          {"vocab_size", 100}};
  EXPECT_EQ(Describe(bloom).ffn, 128);
  bloom["apply_residual_connection_post_layernorm"] = true;
  EXPECT_NE(ErrorOf(bloom).find("apply_residual"), std::string::npos);
}

TEST(Families, Mixtral) {
  nlohmann::json config = TinyConfig("MixtralForCausalLM");
  config["num_local_experts"] = 4;
  config["num_experts_per_tok"] = 2;
  EXPECT_NE(ErrorOf(config).find("rope_theta"), std::string::npos)
      << "the class's default is another than other families'";
  config["rope_theta"] = 1e6;
  const DecoderSpec spec = Describe(config);
  const BlockSpec& block = spec.blocks[2];
  const MixtureSpec& mixture = block.mixture;
  ASSERT_EQ(mixture.experts.size(), 4u);
  EXPECT_EQ(mixture.router.name, "model.layers.2.block_sparse_moe.gate");
  EXPECT_EQ(mixture.router.out, 4);
  EXPECT_EQ(mixture.experts[3].gate.name, "model.layers.2.block_sparse_moe.experts.3.w1");
  EXPECT_EQ(mixture.experts[3].down.name, "model.layers.2.block_sparse_moe.experts.3.w2");
  EXPECT_EQ(mixture.experts[3].down.in, 64);
  EXPECT_EQ(mixture.experts[3].up.name, "model.layers.2.block_sparse_moe.experts.3.w3");
  EXPECT_TRUE(mixture.renormalize);
  EXPECT_TRUE(block.up.name.empty());
  EXPECT_EQ(block.RoutingLinears(), std::vector<const LinearSpec*>{&mixture.router});
  EXPECT_EQ(spec.Linears().size(), 3u * (4 + 3 * 4));
}

nlohmann::json QwenMoe(const std::string& architecture) {
  nlohmann::json config = TinyConfig(architecture);
  config["num_experts"] = 4;
  config["num_experts_per_tok"] = 2;
  config["moe_intermediate_size"] = 24;
  config["shared_expert_intermediate_size"] = 40;
  return config;
}

TEST(Families, SharedExpertIsTheMlpBesideTheMixture) {
  const DecoderSpec spec = Describe(QwenMoe("Qwen2MoeForCausalLM"));
  const BlockSpec& block = spec.blocks[0];
  EXPECT_EQ(block.up.name, "model.layers.0.mlp.shared_expert.up_proj");
  EXPECT_EQ(block.down.in, 40);
  EXPECT_EQ(block.mixture.experts[1].down.name, "model.layers.0.mlp.experts.1.down_proj");
  EXPECT_EQ(block.mixture.experts[1].down.in, 24);
  EXPECT_EQ(block.mixture.shared_gate.name, "model.layers.0.mlp.shared_expert_gate");
  EXPECT_EQ(block.mixture.shared_gate.out, 1);
  EXPECT_FALSE(block.mixture.renormalize);
  EXPECT_EQ(block.RoutingLinears().size(), 2u);
  EXPECT_TRUE(block.query.bias);
  EXPECT_EQ(spec.ffn, 24);
}

TEST(Families, QwenMixturesAreThoseThatTheConfigurationSays) {
  const auto mixtures = [](const nlohmann::json& config) {
    std::vector<bool> found;
    for (const BlockSpec& block : Describe(config).blocks) found.push_back(block.is_mixture());
    return found;
  };
  nlohmann::json config = QwenMoe("Qwen3MoeForCausalLM");
  EXPECT_EQ(mixtures(config), (std::vector<bool>{true, true, true}));
  config["mlp_only_layers"] = {2};
  EXPECT_EQ(mixtures(config), (std::vector<bool>{true, true, false}));
  config["decoder_sparse_step"] = 2;
  EXPECT_EQ(mixtures(config), (std::vector<bool>{false, true, false}));
  const DecoderSpec spec = Describe(config);
  EXPECT_EQ(spec.blocks[0].down.in, 64) << "intermediate_size";
  EXPECT_EQ(spec.blocks[0].down.name, "model.layers.0.mlp.down_proj");
  EXPECT_TRUE(spec.blocks[1].down.name.empty()) << "Qwen3-MoE has no shared expert";
}

TEST(Families, QwenMoeWindows) {
  nlohmann::json config = QwenMoe("Qwen2MoeForCausalLM");
  config["sliding_window"] = 5;
  EXPECT_EQ(Describe(config).blocks[0].sliding_window, 0) << "use_sliding_window defaults to false";
  config["use_sliding_window"] = true;
  EXPECT_EQ(Describe(config).blocks[0].sliding_window, 5);
  EXPECT_EQ(Describe(config).blocks[1].sliding_window, 0) << "every other layer";
  config["max_window_layers"] = 2;
  EXPECT_EQ(Describe(config).blocks[2].sliding_window, 0);
  config["architectures"] = {"Qwen3MoeForCausalLM"};
  EXPECT_EQ(Describe(config).blocks[1].sliding_window, 5);
}

TEST(Families, SharedInputsOfAMixture) {
  const DecoderSpec spec = Describe(QwenMoe("Qwen2MoeForCausalLM"));
  const BlockSpec& block = spec.blocks[0];
  const std::vector<SharedInput> inputs = block.SharedInputs();
  ASSERT_EQ(inputs.size(), 4u + 4);
  std::set<const LinearSpec*> by_input;
  for (const SharedInput& input : inputs) {
    const auto linears = block.LinearsAt(input);
    for (const LinearSpec* linear : linears) EXPECT_EQ(linear->in, linears.front()->in);
    by_input.insert(linears.begin(), linears.end());
  }
  const auto all = block.Linears();
  EXPECT_EQ(by_input, std::set<const LinearSpec*>(all.begin(), all.end()));
  EXPECT_EQ(all.back(), &block.mixture.experts[3].down);
  EXPECT_EQ(block.LinearsAt(Site::kMlpIn).size(), 2u * (1 + 4));
  EXPECT_EQ(block.LinearsAt({Site::kMlpOut, 2}),
            std::vector<const LinearSpec*>{&block.mixture.experts[2].down});
  EXPECT_EQ(NameOf(SharedInput(Site::kMlpOut, 2)), "mlp output of expert 2");
  EXPECT_EQ(block.FusedLinears().size(), 5u) << "q, k, v; o; gate, up; down; all experts";
  EXPECT_EQ(block.FusedLinears().back().size(), 12u);
}

TEST(Families, BadMixturesNameTheKey) {
  for (const auto& [key, value] : std::vector<std::pair<std::string, nlohmann::json>>{
           {"num_experts", nullptr},
           {"num_experts", 0},
           {"num_experts", 1000000},
           {"num_experts_per_tok", 5},
           {"num_experts_per_tok", nullptr},
           {"moe_intermediate_size", nullptr},
           {"shared_expert_intermediate_size", nullptr},
           {"decoder_sparse_step", 0},
           {"mlp_only_layers", 3},
           {"mlp_only_layers", {"first"}},
           {"norm_topk_prob", 1}}) {
    nlohmann::json config = QwenMoe("Qwen2MoeForCausalLM");
    config[key] = value;
    EXPECT_NE(ErrorOf(config).find(key), std::string::npos) << key << " = " << value;
  }
}

TEST(Families, UnknownArchitectureIsRefusedByName) {
  const std::string message = ErrorOf(TinyConfig("GrokForCausalLM"));
  EXPECT_NE(message.find("GrokForCausalLM"), std::string::npos);
  EXPECT_NE(message.find("LlamaForCausalLM"), std::string::npos) << "what is supported is listed";
}

TEST(Families, BadValuesNameTheKey) {
  for (const auto& [key, value] : std::vector<std::pair<std::string, nlohmann::json>>{
           {"hidden_size", -1},
           {"hidden_size", "32"},
           {"hidden_size", nullptr},
           {"vocab_size", 1e30},
           {"num_hidden_layers", 1000000},
           {"num_key_value_heads", 3},
           {"hidden_act", "swiglu9"},
           {"architectures", nlohmann::json::array()},
           {"attention_bias", "yes"}}) {
    nlohmann::json config = TinyConfig("LlamaForCausalLM");
    config[key] = value;
    EXPECT_NE(ErrorOf(config).find(key), std::string::npos) << key << " = " << value;
  }
}

}  // namespace
}  // namespace quantmill
