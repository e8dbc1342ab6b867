// GPT-NeoX and Pythia: attention and MLP side by side (most of them), rotation of a part of each
// head, q, k and v of each head in one linear.
#include "quant/model/activation.h"
#include "quant/model/families.h"
#include "quant/model/plain_layout.h"
#include "quant/model/rope.h"

namespace quantmill {
namespace {

PlainModules NeoxModules(const ConfigReader& config, const DecoderSpec& spec) {
  return {.attention = ".attention",
          .attention_norm = ".input_layernorm",
          .mlp_norm = ".post_attention_layernorm",
          .up = ".mlp.dense_h_to_4h",
          .down = ".mlp.dense_4h_to_h",
          .output = ".dense",
          .query_key_value = ".query_key_value",
          .fused_groups = spec.heads,
          .attention_bias = config.BoolOr("attention_bias", true)};
}

// Its keys of rope under the names that others have.
RopeSpec ReadNeoxRope(const ConfigReader& config, const DecoderSpec& spec) {
  nlohmann::json json = config.json();
  const auto rename = [&](const char* from, const char* to, double fallback) {
    if (!config.Has(to)) json[to] = config.NumberOr(from, fallback);
  };
  rename("rotary_emb_base", "rope_theta", 10000);
  rename("rotary_pct", "partial_rotary_factor", 0.25);
  return ReadRope(ConfigReader(json, config.where()), spec.head_dim, spec.max_positions);
}

}  // namespace

DecoderSpec DescribeGptNeox(const ConfigReader& config) {
  DecoderSpec spec;
  spec.base_prefix = "gpt_neox.";
  spec.norm = NormKind::kLayer;
  spec.norm_eps = static_cast<float>(config.NumberOr("layer_norm_eps", 1e-5));
  spec.hidden = config.Size("hidden_size");
  spec.ffn = config.Size("intermediate_size");
  ReadHeads(config, "num_attention_heads", spec);
  spec.vocab = config.Size("vocab_size");
  spec.max_positions = config.SizeOr("max_position_embeddings", 2048);
  spec.activation = ReadActivation(config, "hidden_act", "gelu");
  spec.rope = ReadNeoxRope(config, spec);
  if (config.BoolOr("use_parallel_residual", true)) spec.order = BlockOrder::kParallel;
  spec.embedding = "gpt_neox.embed_in.weight";
  SetFinalNorm("gpt_neox.final_layer_norm", spec);
  spec.tied = config.BoolOr("tie_word_embeddings", false);
  spec.lm_head = {"embed_out", spec.vocab, spec.hidden, false};
  const PlainModules modules = NeoxModules(config, spec);
  const int64_t layers = ReadLayers(config, "num_hidden_layers");
  for (int64_t i = 0; i < layers; ++i) {
    spec.blocks.push_back(PlainBlock(spec, modules, "gpt_neox.layers." + std::to_string(i)));
  }
  return spec;
}

}  // namespace quantmill
