// OPT, 125m to 66b, and Galactica: layer norms, learned positions, a plain MLP. 350m alone has its
// norms behind the sums and an embedding narrower than the stream.
#include "quant/model/activation.h"
#include "quant/model/families.h"
#include "quant/model/plain_layout.h"

namespace quantmill {
namespace {

// The first rows of the table of positions are not used.
constexpr int64_t kPositionOffset = 2;
constexpr float kNormEps = 1e-5f;

BlockSpec OptBlock(const DecoderSpec& spec, bool bias, const std::string& prefix) {
  BlockSpec block = PlainBlock(spec,
                               {.attention = ".self_attn",
                                .attention_norm = ".self_attn_layer_norm",
                                .mlp_norm = ".final_layer_norm",
                                .up = ".fc1",
                                .down = ".fc2",
                                .output = ".out_proj",
                                .attention_bias = bias,
                                .mlp_bias = bias},
                               prefix);
  block.query.name = block.attention + ".q_proj";
  block.key.name = block.attention + ".k_proj";
  block.value.name = block.attention + ".v_proj";
  return block;
}

}  // namespace

DecoderSpec DescribeOpt(const ConfigReader& config) {
  const std::string decoder = "model.decoder.";
  DecoderSpec spec;
  spec.base_prefix = "model.";
  spec.norm = NormKind::kLayer;
  spec.norm_eps = kNormEps;
  spec.hidden = config.Size("hidden_size");
  spec.ffn = config.Size("ffn_dim");
  ReadHeads(config, "num_attention_heads", spec);
  spec.vocab = config.Size("vocab_size");
  spec.max_positions = config.Size("max_position_embeddings");
  spec.activation = ReadActivation(config, "activation_function", "relu");
  if (!config.BoolOr("layer_norm_elementwise_affine", true)) {
    config.Fail("layer_norm_elementwise_affine", "norms without gains are not supported");
  }
  spec.embedding = decoder + "embed_tokens.weight";
  spec.position_embedding = decoder + "embed_positions.weight";
  spec.position_offset = kPositionOffset;
  const int64_t width = config.SizeOr("word_embed_proj_dim", spec.hidden);
  if (width != spec.hidden) {
    spec.project_in = {decoder + "project_in", spec.hidden, width, false};
    spec.project_out = {decoder + "project_out", width, spec.hidden, false};
  }
  const bool norm_before = config.BoolOr("do_layer_norm_before", true);
  if (!norm_before) spec.order = BlockOrder::kPostNorm;
  if (norm_before && !config.BoolOr("_remove_final_layer_norm", false)) {
    SetFinalNorm(decoder + "final_layer_norm", spec);
  }
  spec.tied = config.BoolOr("tie_word_embeddings", true);
  spec.lm_head = {"lm_head", spec.vocab, width, false};
  const bool bias = config.BoolOr("enable_bias", true);
  const int64_t layers = ReadLayers(config, "num_hidden_layers");
  for (int64_t i = 0; i < layers; ++i) {
    spec.blocks.push_back(OptBlock(spec, bias, decoder + "layers." + std::to_string(i)));
  }
  return spec;
}

}  // namespace quantmill
