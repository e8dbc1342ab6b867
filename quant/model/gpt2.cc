// GPT-2: learned positions, q, k and v in one linear, weights stored [in, out].
#include "quant/model/activation.h"
#include "quant/model/families.h"
#include "quant/model/plain_layout.h"

namespace quantmill {
namespace {

BlockSpec Gpt2Block(const DecoderSpec& spec, const std::string& prefix) {
  BlockSpec block = PlainBlock(spec,
                               {.attention = ".attn",
                                .attention_norm = ".ln_1",
                                .mlp_norm = ".ln_2",
                                .up = ".mlp.c_fc",
                                .down = ".mlp.c_proj",
                                .output = ".c_proj",
                                .query_key_value = ".c_attn"},
                               prefix);
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
  SetFinalNorm("transformer.ln_f", spec);
  spec.tied = config.BoolOr("tie_word_embeddings", true);
  spec.lm_head = {"lm_head", spec.vocab, spec.hidden, false};
  const int64_t layers = ReadLayers(config, "n_layer");
  for (int64_t i = 0; i < layers; ++i) {
    spec.blocks.push_back(Gpt2Block(spec, "transformer.h." + std::to_string(i)));
  }
  return spec;
}

}  // namespace quantmill
