// GPT-2: learned positions, q, k and v in one linear, weights stored [in, out].
#include "quant/model/activation.h"
#include "quant/model/families.h"
#include "quant/model/plain_layout.h"

namespace quantmill {
namespace {

BlockSpec Gpt2Block(const DecoderSpec& spec, const std::string& prefix) {
  BlockSpec block;
  block.prefix = prefix;
  block.attention = prefix + ".attn";
  SetAttentionNorm(prefix + ".ln_1", block);
  SetMlpNorm(prefix + ".ln_2", block);
  for (LinearSpec* part : {&block.query, &block.key, &block.value}) {
    *part = {"", spec.hidden, spec.hidden, true};
  }
  block.FuseQueryKeyValue(block.attention + ".c_attn", 1);
  block.output = {block.attention + ".c_proj", spec.hidden, spec.hidden, true};
  block.up = {prefix + ".mlp.c_fc", spec.ffn, spec.hidden, true};
  block.down = {prefix + ".mlp.c_proj", spec.hidden, spec.ffn, true};
  for (LinearSpec* linear : {&block.query_key_value, &block.output, &block.up, &block.down}) {
    linear->transposed = true;
  }
  return block;
}

}  // namespace

DecoderSpec DescribeGpt2(const ConfigReader& config) {
  if (!config.BoolOr("scale_attn_weights", true)) {
    config.Fail("scale_attn_weights", "false is not supported");
  }
  if (config.BoolOr("scale_attn_by_inverse_layer_idx", false)) {
    config.Fail("scale_attn_by_inverse_layer_idx", "true is not supported");
  }
  DecoderSpec spec;
  spec.base_prefix = "transformer.";
  spec.norm = NormKind::kLayer;
  spec.norm_eps = static_cast<float>(config.NumberOr("layer_norm_epsilon", 1e-5));
  spec.hidden = config.Size("n_embd");
  spec.ffn = config.SizeOr("n_inner", 4 * spec.hidden);
  ReadHeads(config, "n_head", spec);
  spec.vocab = config.Size("vocab_size");
  spec.max_positions = config.SizeOr("n_positions", 1024);
  spec.activation = ReadActivation(config, "activation_function", "gelu_new");
  spec.embedding = "transformer.wte.weight";
  spec.position_embedding = "transformer.wpe.weight";
  spec.final_norm = "transformer.ln_f.weight";
  spec.final_norm_bias = "transformer.ln_f.bias";
  spec.tied = config.BoolOr("tie_word_embeddings", true);
  spec.lm_head = {"lm_head", spec.vocab, spec.hidden, false};
  const int64_t layers = ReadLayers(config, "n_layer");
  for (int64_t i = 0; i < layers; ++i) {
    spec.blocks.push_back(Gpt2Block(spec, "transformer.h." + std::to_string(i)));
  }
  return spec;
}

}  // namespace quantmill
