// Falcon. 7b: one key-value head, one norm for both halves, side by side. 40b, 180b and 11b ("new
// decoder architecture"): groups of heads, a norm for each half. RW: ALiBi, the halves in sequence,
// biases.
#include <cmath>

#include "quant/model/activation.h"
#include "quant/model/families.h"
#include "quant/model/plain_layout.h"
#include "quant/model/rope.h"

namespace quantmill {
namespace {

struct FalconOptions {
  bool new_architecture = false;
  bool multi_query = true;
  bool parallel = true;
  bool bias = false;
  bool two_norms = false;  // of the parallel halves
};

FalconOptions ReadOptions(const ConfigReader& config) {
  FalconOptions options;
  options.new_architecture = config.BoolOr("new_decoder_architecture", false);
  options.multi_query = config.BoolOr("multi_query", true);
  options.parallel = config.BoolOr("parallel_attn", true);
  options.bias = config.BoolOr("bias", false);
  if (options.new_architecture && !options.parallel) {
    config.Fail("parallel_attn", "false does not go with new_decoder_architecture");
  }
  const int64_t norms = config.SizeOr("num_ln_in_parallel_attn", options.new_architecture ? 2 : 1);
  if (norms > (options.new_architecture ? 2 : 1)) {
    config.Fail("num_ln_in_parallel_attn", "is more than the architecture has");
  }
  options.two_norms = norms == 2;
  return options;
}

PlainModules FalconModules(const DecoderSpec& spec, const FalconOptions& options) {
  PlainModules modules{
      .attention = ".self_attention",
      .attention_norm = ".input_layernorm",
      .mlp_norm = options.parallel ? ".input_layernorm" : ".post_attention_layernorm",
      .up = ".mlp.dense_h_to_4h",
      .down = ".mlp.dense_4h_to_h",
      .output = ".dense",
      .query_key_value = ".query_key_value",
      .fused_groups = spec.kv_heads,
      .attention_bias = options.bias,
      .mlp_bias = options.bias};
  if (options.two_norms) {
    modules.attention_norm = ".ln_attn";
    modules.mlp_norm = ".ln_mlp";
  }
  return modules;
}

}  // namespace

DecoderSpec DescribeFalcon(const ConfigReader& config) {
  const FalconOptions options = ReadOptions(config);
  DecoderSpec spec;
  spec.base_prefix = "transformer.";
  spec.norm = NormKind::kLayer;
  spec.norm_eps = static_cast<float>(config.NumberOr("layer_norm_epsilon", 1e-5));
  spec.hidden = config.Size("hidden_size");
  spec.ffn = config.SizeOr("ffn_hidden_size", 4 * spec.hidden);
  ReadHeads(config, "num_attention_heads", spec);
  if (options.new_architecture) {
    spec.kv_heads = config.SizeOr("num_kv_heads", spec.heads);
  } else if (options.multi_query) {
    spec.kv_heads = 1;
  }
  if (spec.heads % spec.kv_heads != 0) {
    config.Fail("num_kv_heads", "does not divide num_attention_heads");
  }
  spec.vocab = config.Size("vocab_size");
  spec.max_positions = config.SizeOr("max_position_embeddings", 2048);
  spec.activation = ReadActivation(config, "activation", "gelu");
  if (options.parallel) spec.order = BlockOrder::kParallel;
  if (config.BoolOr("alibi", false)) {
    // Added before scores are scaled. (transformers rounds slope * position to BF16, servers do
    // not; for up to 8 heads, and 256 positions, it is the same.)
    spec.alibi_slopes = AlibiSlopes(spec.heads);
    for (float& slope : spec.alibi_slopes) slope /= std::sqrt(static_cast<float>(spec.head_dim));
  } else {
    spec.rope = ReadRope(config, spec.head_dim, spec.max_positions);
  }
  spec.embedding = "transformer.word_embeddings.weight";
  SetFinalNorm("transformer.ln_f", spec);
  spec.tied = config.BoolOr("tie_word_embeddings", true);
  spec.lm_head = {"lm_head", spec.vocab, spec.hidden, false};
  const PlainModules modules = FalconModules(spec, options);
  const int64_t layers = ReadLayers(config, "num_hidden_layers");
  for (int64_t i = 0; i < layers; ++i) {
    spec.blocks.push_back(PlainBlock(spec, modules, "transformer.h." + std::to_string(i)));
  }
  return spec;
}

}  // namespace quantmill
