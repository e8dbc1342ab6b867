#include "quant/model/gguf_layout.h"

#include <utility>

#include "kernels/core/error.h"
#include "quant/model/gguf_family.h"
#include "quant/model/gguf_graph.h"
#include "quant/model/gguf_keys.h"

namespace quantmill {
namespace {

const GgufFamily& FamilyOf(const DecoderSpec& spec, const ConfigReader& config) {
  if (const GgufFamily* family = FindGgufFamily(spec.architecture)) return *family;
  config.Fail("architectures", "'" + spec.architecture + "' is not written to gguf");
}

class Layout {
 public:
  Layout(const DecoderSpec& spec, const ConfigReader& config)
      : spec_(spec), family_(FamilyOf(spec, config)) {
    layout_.architecture = family_.name;
    CheckGgufGraph(spec, config, family_);
    DescribeGgufKeys(spec, config, family_, layout_);
    AddMatrix({spec.embedding, spec.vocab, spec.hidden, false}, "token_embd", {},
              GgufRole::kEmbedding, -1);
    AddOuterTensors();
    for (int64_t i = 0; i < spec.layers(); ++i) AddBlock(i);
    AddNorm(spec.final_norm, spec.final_norm_bias, "output_norm");
    if (!spec.tied) AddMatrix(spec.lm_head, "output", {}, GgufRole::kHead, -1);
  }

  GgufLayout Take() && { return std::move(layout_); }

 private:
  void AddOuterTensors();
  void AddBlock(int64_t layer);
  void AddAttentionNorms(const BlockSpec& block, const std::string& prefix);
  void AddAttention(const BlockSpec& block, int64_t layer);
  void AddMixture(const BlockSpec& block, int64_t layer);

  void AddMatrix(const LinearSpec& linear, const std::string& name, const GgufRowOrder& order,
                 GgufRole role, int64_t layer) {
    if (linear.name.empty()) return;
    layout_.matrices.push_back({linear, name + ".weight", order, role, layer, 0, 0});
    if (!linear.bias) return;
    layout_.floats.push_back({.source = linear.name + ".bias",
                              .name = name + ".bias",
                              .shape = {linear.out},
                              .order = order});
  }
  void AddGain(const std::string& source, const std::string& name, int64_t size) {
    if (source.empty()) return;
    layout_.floats.push_back(
        {.source = source, .name = name + ".weight", .shape = {size}, .added = spec_.gain_offset});
  }
  void AddNorm(const std::string& gain, const std::string& bias, const std::string& name) {
    AddGain(gain, name, spec_.hidden);
    if (bias.empty()) return;
    layout_.floats.push_back({.source = bias, .name = name + ".bias", .shape = {spec_.hidden}});
  }

  const DecoderSpec& spec_;
  const GgufFamily& family_;
  GgufLayout layout_;
};

std::string BlockPrefix(int64_t layer) { return "blk." + std::to_string(layer) + "."; }

void Layout::AddOuterTensors() {
  AddNorm(spec_.embedding_norm, spec_.embedding_norm_bias, "token_embd_norm");
  if (spec_.position_embedding.empty()) return;
  layout_.floats.push_back({.source = spec_.position_embedding,
                            .name = "position_embd.weight",
                            .shape = {spec_.max_positions + spec_.position_offset, spec_.hidden}});
}

void Layout::AddBlock(int64_t layer) {
  const BlockSpec& block = spec_.blocks[static_cast<size_t>(layer)];
  const std::string prefix = BlockPrefix(layer);
  const auto matrix = [&](const LinearSpec& linear, const char* name,
                          GgufRole role = GgufRole::kLinear) {
    AddMatrix(linear, prefix + name, {}, role, layer);
  };
  AddAttentionNorms(block, prefix);
  AddAttention(block, layer);
  if (!family_.mlp_norm_first) AddNorm(block.mlp_norm, block.mlp_norm_bias, prefix + "ffn_norm");
  const bool shared = block.is_mixture();
  matrix(block.gate_up, "ffn_up");  // [gate; up]
  matrix(block.gate, shared ? "ffn_gate_shexp" : "ffn_gate");
  matrix(block.up, shared ? "ffn_up_shexp" : "ffn_up");
  matrix(block.down, shared ? "ffn_down_shexp" : "ffn_down", GgufRole::kValueOrDown);
  if (block.is_mixture()) AddMixture(block, layer);
  AddGain(block.mlp_post_norm, prefix + "post_ffw_norm", spec_.hidden);
}

void Layout::AddAttentionNorms(const BlockSpec& block, const std::string& prefix) {
  if (!family_.mlp_norm_first) {
    return AddNorm(block.attention_norm, block.attention_norm_bias, prefix + "attn_norm");
  }
  AddNorm(block.mlp_norm, block.mlp_norm_bias, prefix + "attn_norm");
  if (block.attention_norm == block.mlp_norm) return;
  AddNorm(block.attention_norm, block.attention_norm_bias, prefix + "attn_norm_2");
}

void Layout::AddAttention(const BlockSpec& block, int64_t layer) {
  const std::string prefix = BlockPrefix(layer);
  const auto matrix = [&](const LinearSpec& linear, const char* name, const GgufRowOrder& order,
                          GgufRole role) { AddMatrix(linear, prefix + name, order, role, layer); };
  const auto rotated = [&](int64_t heads) {
    return GgufRowOrder{.rope_heads = family_.permuted ? heads : 0, .runs = {}};
  };
  GgufRowOrder parts;  // all of q, all of k, all of v
  if (block.query_key_value_groups > 1) {
    for (const LinearSpec* part : {&block.query, &block.key, &block.value}) {
      parts.runs.push_back(block.Stored(*part).rows);
    }
  }
  matrix(block.query_key_value, "attn_qkv", parts, GgufRole::kQueryKeyValue);
  matrix(block.query, "attn_q", rotated(spec_.heads), GgufRole::kLinear);
  matrix(block.key, "attn_k", rotated(spec_.kv_heads), GgufRole::kLinear);
  matrix(block.value, "attn_v", {}, GgufRole::kValueOrDown);
  matrix(block.output, "attn_output", {}, GgufRole::kLinear);
  AddGain(block.query_norm, prefix + "attn_q_norm", spec_.head_dim);
  AddGain(block.key_norm, prefix + "attn_k_norm", spec_.head_dim);
  AddGain(block.attention_post_norm, prefix + "post_attention_norm", spec_.hidden);
}

void Layout::AddMixture(const BlockSpec& block, int64_t layer) {
  const MixtureSpec& mixture = block.mixture;
  const std::string prefix = BlockPrefix(layer);
  const auto routing = [&](const LinearSpec& linear, const char* name, bool flat) {
    if (linear.name.empty()) return;
    layout_.floats.push_back({.source = linear.name + ".weight",
                              .name = prefix + name,
                              .shape = {linear.out, linear.in},
                              .flat = flat});
  };
  routing(mixture.router, "ffn_gate_inp.weight", false);
  routing(mixture.shared_gate, "ffn_gate_inp_shexp.weight", true);
  const auto experts = std::ssize(mixture.experts);
  const auto stack = [&](LinearSpec MlpSpec::*part, const char* name, GgufRole role) {
    for (int64_t e = 0; e < experts; ++e) {
      const LinearSpec& linear = mixture.experts[static_cast<size_t>(e)].*part;
      layout_.matrices.push_back({linear, prefix + name, {}, role, layer, e, experts});
    }
  };
  stack(&MlpSpec::gate, "ffn_gate_exps.weight", GgufRole::kLinear);
  stack(&MlpSpec::up, "ffn_up_exps.weight", GgufRole::kLinear);
  stack(&MlpSpec::down, "ffn_down_exps.weight", GgufRole::kValueOrDown);
}

}  // namespace

bool HasGgufLayout(std::string_view architecture) {
  return FindGgufFamily(architecture) != nullptr;
}

GgufLayout DescribeGguf(const DecoderSpec& spec, const ConfigReader& config) {
  return Layout(spec, config).Take();
}

int64_t GgufRowOrder::SourceOf(int64_t row, int64_t rows) const {
  if (runs.empty()) return RopeRow(row, rows, rope_heads);
  int64_t left = row;
  for (const RowRuns& run : runs) {
    if (left < run.rows()) return run.Row(left);
    left -= run.rows();
  }
  Check(false, "GgufRowOrder: no such row");
  return row;
}

int64_t RopeRow(int64_t row, int64_t rows, int64_t heads) {
  if (heads == 0) return row;
  const int64_t size = rows / heads;
  Check(size * heads == rows && size % 2 == 0, "RopeRow: heads of an even size");
  const int64_t in_head = row % size;
  return row - in_head + in_head / 2 + (in_head % 2) * (size / 2);
}

}  // namespace quantmill
