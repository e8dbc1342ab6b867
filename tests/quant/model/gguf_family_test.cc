// GGUF files of each family, read as the checkpoint that they stand for.
#include "quant/model/gguf_family.h"

#include <gmock/gmock.h>

#include <set>

#include "tests/quant/model/tiny_gguf.h"

namespace quantmill::test {
namespace {

// With three experts, of the family's own keys.
json MixtureConfig(const std::string& architecture) {
  json config = TinyConfig(architecture);
  config["num_experts_per_tok"] = 2;
  if (architecture == "MixtralForCausalLM") {
    config["num_local_experts"] = 3;
    return config;
  }
  config["num_experts"] = 3;
  config["moe_intermediate_size"] = 96;
  const bool qwen2 = architecture == "Qwen2MoeForCausalLM";
  config["norm_topk_prob"] = !qwen2;
  if (qwen2) config["shared_expert_intermediate_size"] = 160;
  return config;
}

json GemmaConfig(const std::string& architecture) {
  json config = TinyConfig(architecture);
  config.erase("hidden_act");
  config["hidden_activation"] = "gelu_pytorch_tanh";
  config["query_pre_attn_scalar"] = 8;
  config["sliding_window"] = 16;
  config["tie_word_embeddings"] = true;
  if (architecture == "Gemma2ForCausalLM") {
    config["attn_logit_softcapping"] = 50.0;
    config["final_logit_softcapping"] = 30.0;
  } else {
    config["rope_local_base_freq"] = 20000.0;
    config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8.0}};
  }
  return config;
}

json LongRopeConfig() {
  json config = TinyConfig("Phi3ForCausalLM");
  config["original_max_position_embeddings"] = 32;
  config["rope_scaling"] = {{"type", "longrope"},
                            {"short_factor", {1.0, 1.1, 1.3, 1.6}},
                            {"long_factor", {1.0, 1.7, 2.9, 4.0}}};
  return config;
}

// Families with keys of their own.
std::vector<json> PlainConfigs() {
  const json sizes = {{"hidden_size", 32}, {"vocab_size", kVocab}};
  std::vector<json> configs;
  const auto add = [&](const json& keys) {
    configs.push_back(sizes);
    configs.back().update(keys);
  };
  for (const bool parallel : {true, false}) {
    add({{"architectures", {"GPTNeoXForCausalLM"}},
         {"intermediate_size", 64},
         {"num_hidden_layers", 2},
         {"num_attention_heads", 4},
         {"max_position_embeddings", 128},
         {"layer_norm_eps", 1e-5},
         {"hidden_act", "gelu"},
         {"rotary_pct", 0.25},
         {"rotary_emb_base", 500.0},
         {"use_parallel_residual", parallel},
         {"tie_word_embeddings", false}});
  }
  configs.push_back({{"architectures", {"GPT2LMHeadModel"}},
                     {"n_embd", 32},
                     {"n_inner", 96},
                     {"n_layer", 2},
                     {"n_head", 4},
                     {"n_positions", 17},
                     {"activation_function", "gelu_new"},
                     {"layer_norm_epsilon", 1e-6},
                     {"vocab_size", kVocab},
                     {"tie_word_embeddings", true}});
  for (const int64_t kv_heads : {1, 2}) {
    for (const int norms : {1, 2}) {
      if (kv_heads == 1 && norms == 2) continue;
      add({{"architectures", {"FalconForCausalLM"}},
           {"ffn_hidden_size", 96},
           {"num_hidden_layers", 2},
           {"num_attention_heads", 4},
           {"max_position_embeddings", 128},
           {"layer_norm_epsilon", 1e-5},
           {"activation", "gelu"},
           {"rope_theta", 10000.0},
           {"multi_query", kv_heads == 1},
           {"parallel_attn", true},
           {"alibi", false},
           {"bias", false},
           {"new_decoder_architecture", kv_heads > 1},
           {"tie_word_embeddings", norms == 1}});
      if (kv_heads == 1) continue;
      configs.back()["num_kv_heads"] = kv_heads;
      configs.back()["num_ln_in_parallel_attn"] = norms;
    }
  }
  add({{"architectures", {"BloomForCausalLM"}},
       {"n_layer", 2},
       {"n_head", 4},
       {"seq_length", 128},
       {"layer_norm_epsilon", 1e-5},
       {"tie_word_embeddings", true}});
  return configs;
}

TEST_F(GgufModelTest, TensorsAndConfigurationAreThoseOfTheCheckpoint) {
  std::vector<json> configs;
  for (const char* name : {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    configs.push_back(TinyConfig(name));
  }
  configs.push_back(TinyConfig("LlamaForCausalLM"));
  configs.back()["attention_bias"] = configs.back()["mlp_bias"] = true;
  configs.back()["tie_word_embeddings"] = true;
  configs.push_back(TinyConfig("LlamaForCausalLM"));
  configs.back()["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
  configs.push_back(TinyConfig("Qwen2ForCausalLM"));
  configs.back()["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}};
  configs.push_back(TinyConfig("LlamaForCausalLM"));
  configs.back()["rope_theta"] = 500000.0;
  configs.back()["rope_scaling"] = {{"rope_type", "llama3"},
                                    {"factor", 32.0},
                                    {"low_freq_factor", 1.0},
                                    {"high_freq_factor", 4.0},
                                    {"original_max_position_embeddings", 8192}};
  for (const char* name : {"MixtralForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"}) {
    configs.push_back(MixtureConfig(name));
  }
  for (const char* name : {"Gemma2ForCausalLM", "Gemma3ForCausalLM"}) {
    configs.push_back(GemmaConfig(name));
  }
  configs.push_back(TinyConfig("Phi3ForCausalLM"));
  configs.back()["partial_rotary_factor"] = 0.5;
  configs.push_back(LongRopeConfig());
  for (json& config : PlainConfigs()) configs.push_back(std::move(config));
  for (const json& config : configs) {
    SCOPED_TRACE(config.dump());
    const TinyGguf tiny(config);
    const ModelSource source = ModelSource::Open(Write(tiny));
    json read = source.checkpoint().config();
    for (const auto& [key, value] : config.items()) EXPECT_EQ(read.at(key), value) << key;
    EXPECT_EQ(read.value("torch_dtype", ""), "float16");
    EXPECT_EQ(read.contains("rope_scaling"), config.contains("rope_scaling"));
    EXPECT_EQ(read.value("tie_word_embeddings", false), config.value("tie_word_embeddings", false));
    EXPECT_EQ(source.checkpoint().names().size(), tiny.wanted.size());
    for (const auto& [name, values] : tiny.wanted) {
      EXPECT_EQ(Values(source, name), values) << name;
      EXPECT_EQ(source.checkpoint().Info(name).dtype, "F16") << name;
    }
  }
}

TEST_F(GgufModelTest, CodesOfExperts) {
  TinyGguf tiny(MixtureConfig("MixtralForCausalLM"));
  tiny.Tensor("blk.1.ffn_down_exps.weight").type = GgmlType::kQ8_0;
  tiny.Tensor("blk.1.ffn_up_exps.weight").type = GgmlType::kQ4_1;
  const std::string path = Write(tiny);
  const ModelSource source = ModelSource::Open(path);
  const ModelSource dense = ModelSource::Open(path, {.codes = false, .dense = DType::kF32});
  const BlockSpec& block = source.spec().blocks[1];
  std::set<std::vector<float>> different;
  for (const MlpSpec& expert : block.mixture.experts) {
    ASSERT_TRUE(source.SchemeOf(expert.down));
    EXPECT_FALSE(source.SchemeOf(expert.up));
    const QuantizedLinear codes = source.ReadQuantized(expert.down);
    std::vector<float> values(static_cast<size_t>(codes.out * codes.in));
    for (int64_t row = 0; row < codes.out; ++row) {
      DequantizeRow(codes, row, &values[static_cast<size_t>(row * codes.in)]);
    }
    EXPECT_EQ(values, Values(dense, expert.down.name + ".weight"));
    const std::vector<float>& wanted = tiny.wanted.at(expert.down.name + ".weight");
    for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], wanted[i], 1.0 / 127);
    different.insert(values);
    EXPECT_EQ(source.checkpoint().Stored(expert.down.name + ".weight").bytes, 32u * 2 * 34);
  }
  EXPECT_EQ(different.size(), 3u);
}

TEST_F(GgufModelTest, AnyContextOfLlama3IsFound) {
  for (const int64_t original : {32, 1000, 8192, 40000, 1000000}) {
    json config = TinyConfig("LlamaForCausalLM");
    config["rope_theta"] = 500.0;
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", 4.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", original}};
    const ModelSource source = ModelSource::Open(Write(TinyGguf(config)));
    const std::vector<float> wanted = DescribeDecoder(config, "config").rope.inv_freq;
    const std::vector<float>& found = source.spec().rope.inv_freq;
    ASSERT_EQ(found.size(), wanted.size());
    for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i], wanted[i], 1e-4 * wanted[i]);
  }
}

TEST_F(GgufModelTest, LongRopeNamesAnAmplitudeOfItsOwn) {
  TinyGguf tiny(LongRopeConfig());
  tiny.Set("phi3.rope.scaling.attn_factor", 1.5f);
  const ModelSource source = ModelSource::Open(Write(tiny));
  EXPECT_EQ(source.spec().rope.amplitude, 1.5f);
  std::erase_if(tiny.tensors, [](const auto& t) { return t.name == "rope_factors_short.weight"; });
  ExpectRefused(tiny, {"'rope_factors_long.weight'", "rope_factors_short.weight"});
}

TEST_F(GgufModelTest, CodesOfTransposedWeights) {
  TinyGguf tiny(PlainConfigs()[2]);
  tiny.Tensor("blk.1.ffn_up.weight").type = GgmlType::kQ8_0;
  tiny.Tensor("blk.1.ffn_down.weight").type = GgmlType::kQ4_1;
  const std::string path = Write(tiny);
  const ModelSource source = ModelSource::Open(path);
  const ModelSource dense = ModelSource::Open(path, {.codes = false, .dense = DType::kF32});
  const BlockSpec& block = source.spec().blocks[1];
  const QuantizedLinear codes = source.ReadQuantized(block.up);
  EXPECT_EQ(codes.out, 96);
  std::vector<float> values(static_cast<size_t>(codes.out * codes.in));
  for (int64_t row = 0; row < codes.out; ++row) {
    DequantizeRow(codes, row, &values[static_cast<size_t>(row * codes.in)]);
  }
  EXPECT_EQ(TinyGguf::Transpose(values, codes.in), Values(dense, block.up.name + ".weight"));
  EXPECT_THAT(dense.checkpoint().Info(block.down.name + ".weight").shape,
              testing::ElementsAre(96, 32));
  const std::vector<float> down = Values(dense, block.down.name + ".weight");
  const std::vector<float>& wanted = tiny.wanted.at(block.down.name + ".weight");
  for (size_t i = 0; i < down.size(); ++i) EXPECT_NEAR(down[i], wanted[i], 2.0 / 15);
}

}  // namespace
}  // namespace quantmill::test
