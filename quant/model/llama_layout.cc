#include "quant/model/llama_layout.h"

#include "quant/model/activation.h"
#include "quant/model/rope.h"

namespace quantmill {
namespace {

BlockSpec LlamaBlock(const DecoderSpec& spec, const LlamaVariation& v, int64_t layer) {
  const std::string prefix = "model.layers." + std::to_string(layer);
  const std::string attention = prefix + ".self_attn.";
  const std::string mlp = prefix + ".mlp.";
  const int64_t q_width = spec.heads * spec.head_dim;
  const int64_t kv_width = spec.kv_heads * spec.head_dim;
  BlockSpec block;
  block.prefix = prefix;
  block.attention = prefix + ".self_attn";
  block.attention_norm = prefix + ".input_layernorm.weight";
  block.mlp_norm = prefix + ".post_attention_layernorm.weight";
  if (v.query_key_norm) {
    block.query_norm = attention + "q_norm.weight";
    block.key_norm = attention + "k_norm.weight";
  }
  block.query = {attention + "q_proj", q_width, spec.hidden, v.query_key_value_bias};
  block.key = {attention + "k_proj", kv_width, spec.hidden, v.query_key_value_bias};
  block.value = {attention + "v_proj", kv_width, spec.hidden, v.query_key_value_bias};
  block.output = {attention + "o_proj", spec.hidden, q_width, v.output_bias};
  block.gate = {mlp + "gate_proj", spec.ffn, spec.hidden, v.mlp_bias};
  block.up = {mlp + "up_proj", spec.ffn, spec.hidden, v.mlp_bias};
  block.down = {mlp + "down_proj", spec.hidden, spec.ffn, v.mlp_bias};
  return block;
}

}  // namespace

DecoderSpec LlamaLayout(const ConfigReader& config, const LlamaVariation& variation) {
  DecoderSpec spec;
  spec.hidden = config.Size("hidden_size");
  spec.ffn = config.Size("intermediate_size");
  spec.heads = config.Size("num_attention_heads");
  spec.kv_heads = config.SizeOr("num_key_value_heads", spec.heads);
  if (spec.heads % spec.kv_heads != 0) {
    config.Fail("num_key_value_heads", "does not divide num_attention_heads");
  }
  if (!config.Has("head_dim") && spec.hidden % spec.heads != 0) {
    config.Fail("head_dim", "missing, and hidden_size is not a multiple of num_attention_heads");
  }
  spec.head_dim = config.SizeOr("head_dim", spec.hidden / spec.heads);
  spec.vocab = config.Size("vocab_size");
  spec.max_positions = config.SizeOr("max_position_embeddings", 2048);
  spec.norm_eps = static_cast<float>(config.NumberOr("rms_norm_eps", 1e-6));
  spec.activation = ReadActivation(config, "hidden_act", "silu");
  spec.rope = ReadRope(config, spec.head_dim, spec.max_positions);
  spec.embedding = "model.embed_tokens.weight";
  spec.final_norm = "model.norm.weight";
  spec.tied = config.BoolOr("tie_word_embeddings", false);
  spec.lm_head = {"lm_head", spec.vocab, spec.hidden, false};
  const int64_t layers = config.Size("num_hidden_layers");
  if (layers > 10000) config.Fail("num_hidden_layers", std::to_string(layers) + " is out of range");
  for (int64_t i = 0; i < layers; ++i) spec.blocks.push_back(LlamaBlock(spec, variation, i));
  return spec;
}

void SetSlidingWindows(const ConfigReader& config, int64_t window, int64_t first_sliding,
                       DecoderSpec& spec) {
  if (!config.Has("layer_types")) {
    for (int64_t i = first_sliding; i < spec.layers(); ++i) {
      spec.blocks[static_cast<size_t>(i)].sliding_window = window;
    }
    return;
  }
  const nlohmann::json& types = config.json().at("layer_types");
  if (!types.is_array() || types.size() != spec.blocks.size()) {
    config.Fail("layer_types", "needs one entry for each layer");
  }
  auto block = spec.blocks.begin();
  for (const nlohmann::json& type : types) {
    const std::string name = type.is_string() ? type.get<std::string>() : std::string();
    if (name != "sliding_attention" && name != "full_attention") {
      config.Fail("layer_types", "unknown layer type " + type.dump());
    }
    block->sliding_window = name == "sliding_attention" ? window : 0;
    ++block;
  }
}

void SetQwenWindows(const ConfigReader& config, DecoderSpec& spec) {
  if (!config.BoolOr("use_sliding_window", false) || !config.Has("sliding_window")) return;
  SetSlidingWindows(config, config.Size("sliding_window"),
                    config.SizeOr("max_window_layers", spec.layers()), spec);
}

LlamaVariation Qwen3Variation(const ConfigReader& config) {
  LlamaVariation variation;
  variation.query_key_norm = true;
  variation.query_key_value_bias = config.BoolOr("attention_bias", false);
  variation.output_bias = variation.query_key_value_bias;
  return variation;
}

}  // namespace quantmill
