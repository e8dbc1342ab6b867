// BLOOM: ALiBi, a norm behind the embedding, q, k and v of each head in one linear, biases
// everywhere.
#include "quant/model/families.h"
#include "quant/model/plain_layout.h"

namespace quantmill {
namespace {

PlainModules BloomModules(const DecoderSpec& spec) {
  return {.attention = ".self_attention",
          .attention_norm = ".input_layernorm",
          .mlp_norm = ".post_attention_layernorm",
          .up = ".mlp.dense_h_to_4h",
          .down = ".mlp.dense_4h_to_h",
          .output = ".dense",
          .query_key_value = ".query_key_value",
          .fused_groups = spec.heads};
}

}  // namespace

DecoderSpec DescribeBloom(const ConfigReader& config) {
  if (config.BoolOr("apply_residual_connection_post_layernorm", false)) {
    config.Fail("apply_residual_connection_post_layernorm", "true is not supported");
  }
  // Older files have the second spelling.
  const auto spelled = [&](const char* key, const char* other) {
    return config.Has(key) ? key : other;
  };
  DecoderSpec spec;
  spec.base_prefix = "transformer.";
  spec.norm = NormKind::kLayer;
  spec.norm_eps = static_cast<float>(config.NumberOr("layer_norm_epsilon", 1e-5));
  spec.hidden = config.Size(spelled("n_embed", "hidden_size"));
  spec.ffn = 4 * spec.hidden;
  ReadHeads(config, spelled("n_head", "num_attention_heads"), spec);
  spec.vocab = config.Size("vocab_size");
  spec.max_positions = config.SizeOr("seq_length", 2048);  // trained; ALiBi has no limit
  spec.activation = Activation::kGeluTanh;
  spec.alibi_slopes = AlibiSlopes(spec.heads);
  spec.embedding = "transformer.word_embeddings.weight";
  spec.embedding_norm = "transformer.word_embeddings_layernorm.weight";
  spec.embedding_norm_bias = "transformer.word_embeddings_layernorm.bias";
  SetFinalNorm("transformer.ln_f", spec);
  spec.tied = config.BoolOr("tie_word_embeddings", true);
  spec.lm_head = {"lm_head", spec.vocab, spec.hidden, false};
  const int64_t layers = ReadLayers(config, spelled("n_layer", "num_hidden_layers"));
  for (int64_t i = 0; i < layers; ++i) {
    spec.blocks.push_back(
        PlainBlock(spec, BloomModules(spec), "transformer.h." + std::to_string(i)));
  }
  return spec;
}

}  // namespace quantmill
