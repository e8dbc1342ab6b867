// Gemma 2 and 3 (text): Llama's names and a gated MLP, gains that are stored less 1, norms also
// behind attention and MLP, a scaled embedding, sliding windows in some layers.
#include <cmath>

#include "quant/model/activation.h"
#include "quant/model/families.h"
#include "quant/model/llama_layout.h"
#include "quant/model/rope.h"

namespace quantmill {
namespace {

// A key that is absent has the class's default; null says that there is none.
float CapOr(const ConfigReader& config, const char* key, double fallback) {
  if (!config.json().contains(key)) return static_cast<float>(fallback);
  if (!config.Has(key)) return 0;
  const double cap = config.Number(key);
  if (cap <= 0) config.Fail(key, "must be positive, or null");
  return static_cast<float>(cap);
}

// Every `period`-th layer sees everything, where layer_types does not say.
void SetWindows(const ConfigReader& config, int64_t period, DecoderSpec& spec) {
  SetSlidingWindows(config, config.SizeOr("sliding_window", 4096), 0, spec);
  if (config.Has("layer_types")) return;
  for (int64_t i = period - 1; i < spec.layers(); i += period) {
    spec.blocks[static_cast<size_t>(i)].sliding_window = 0;
  }
}

DecoderSpec GemmaLayout(const ConfigReader& config, bool query_key_norm) {
  for (const char* key : {"head_dim", "num_key_value_heads", "max_position_embeddings"}) {
    config.Size(key);  // the class's defaults are those of one model
  }
  if (config.BoolOr("use_bidirectional_attention", false)) {
    config.Fail("use_bidirectional_attention", "an encoder; only decoders are supported");
  }
  LlamaVariation variation;
  variation.query_key_value_bias = config.BoolOr("attention_bias", false);
  variation.output_bias = variation.query_key_value_bias;
  variation.query_key_norm = query_key_norm;
  DecoderSpec spec = LlamaLayout(config, variation);
  spec.activation = ReadActivation(config, "hidden_activation", "gelu_pytorch_tanh");
  spec.gain_offset = 1;
  spec.embedding_scale = std::sqrt(static_cast<float>(spec.hidden));
  const double scalar = config.NumberOr("query_pre_attn_scalar", 256);
  if (scalar <= 0) config.Fail("query_pre_attn_scalar", "must be positive");
  spec.attention_scale = static_cast<float>(1 / std::sqrt(scalar));
  spec.tied = config.BoolOr("tie_word_embeddings", true);
  for (BlockSpec& block : spec.blocks) {
    block.attention_post_norm = block.prefix + ".post_attention_layernorm.weight";
    block.mlp_norm = block.prefix + ".pre_feedforward_layernorm.weight";
    block.mlp_post_norm = block.prefix + ".post_feedforward_layernorm.weight";
  }
  return spec;
}

// The rope of one type of layer: rope_parameters[type] of transformers 5, or `flat`.
RopeSpec RopeOfType(const ConfigReader& config, const char* type, double default_theta,
                    const RopeScaling& flat, const DecoderSpec& spec) {
  const std::optional<ConfigReader> all = config.Child("rope_parameters");
  const std::optional<ConfigReader> own = all ? all->Child(type) : std::nullopt;
  if (!own) return MakeRope(flat, spec.head_dim, spec.max_positions, config);
  const RopeScaling rope = {own->NumberOr("rope_theta", default_theta),
                            own->TextOr("rope_type", "default"), *own};
  return MakeRope(rope, spec.head_dim, spec.max_positions, config);
}

}  // namespace

DecoderSpec DescribeGemma2(const ConfigReader& config) {
  DecoderSpec spec = GemmaLayout(config, false);
  spec.attention_softcap = CapOr(config, "attn_logit_softcapping", 50);
  spec.logit_softcap = CapOr(config, "final_logit_softcapping", 30);
  SetWindows(config, 2, spec);
  return spec;
}

DecoderSpec DescribeGemma3(const ConfigReader& config) {
  DecoderSpec spec = GemmaLayout(config, true);
  spec.attention_softcap = CapOr(config, "attn_logit_softcapping", 0);
  spec.logit_softcap = CapOr(config, "final_logit_softcapping", 0);
  SetWindows(config, config.SizeOr("sliding_window_pattern", 6), spec);
  constexpr double kGlobalTheta = 1e6;
  constexpr double kLocalTheta = 1e4;
  RopeScaling global = FindRopeScaling(config);
  if (!config.Has("rope_theta")) global.theta = kGlobalTheta;
  const RopeScaling local = {config.NumberOr("rope_local_base_freq", kLocalTheta), "default", {}};
  spec.rope = RopeOfType(config, "full_attention", kGlobalTheta, global, spec);
  spec.window_rope = RopeOfType(config, "sliding_attention", kLocalTheta, local, spec);
  return spec;
}

}  // namespace quantmill
