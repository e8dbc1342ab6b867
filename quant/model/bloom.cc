// BLOOM: ALiBi, a norm behind the embedding, q, k and v of each head in one linear, biases
// everywhere.
#include "quant/model/families.h"
#include "quant/model/plain_layout.h"

namespace quantmill {
namespace {

BlockSpec BloomBlock(const DecoderSpec& spec, const std::string& prefix) {
  BlockSpec block;
  block.prefix = prefix;
  block.attention = prefix + ".self_attention";
  SetAttentionNorm(prefix + ".input_layernorm", block);
  SetMlpNorm(prefix + ".post_attention_layernorm", block);
  for (LinearSpec* part : {&block.query, &block.key, &block.value}) {
    *part = {"", spec.hidden, spec.hidden, true};
  }
  block.FuseQueryKeyValue(block.attention + ".query_key_value", spec.heads);
  block.output = {block.attention + ".dense", spec.hidden, spec.hidden, true};
  block.up = {prefix + ".mlp.dense_h_to_4h", spec.ffn, spec.hidden, true};
  block.down = {prefix + ".mlp.dense_4h_to_h", spec.hidden, spec.ffn, true};
  return block;
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
  spec.final_norm = "transformer.ln_f.weight";
  spec.final_norm_bias = "transformer.ln_f.bias";
  spec.tied = config.BoolOr("tie_word_embeddings", true);
  spec.lm_head = {"lm_head", spec.vocab, spec.hidden, false};
  const int64_t layers = ReadLayers(config, spelled("n_layer", "num_hidden_layers"));
  for (int64_t i = 0; i < layers; ++i) {
    spec.blocks.push_back(BloomBlock(spec, "transformer.h." + std::to_string(i)));
  }
  return spec;
}

}  // namespace quantmill
