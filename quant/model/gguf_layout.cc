#include "quant/model/gguf_layout.h"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/core/error.h"
#include "quant/model/rope.h"

namespace quantmill {
namespace {

struct GgufFamily {
  std::string_view architecture;  // of config.json
  std::string_view name;          // in llama.cpp
  bool permuted;                  // q and k are stored for the rotation of neighbours
  bool any_bias;                  // every linear may have one; otherwise q, k and v alone, or none
  bool query_key_value_bias;
};
constexpr std::array kFamilies = {
    GgufFamily{"LlamaForCausalLM", "llama", true, true, true},
    GgufFamily{"MistralForCausalLM", "llama", true, true, true},
    GgufFamily{"Qwen2ForCausalLM", "qwen2", false, false, true},
    GgufFamily{"Qwen3ForCausalLM", "qwen3", false, false, false},
};

const GgufFamily* FamilyOf(std::string_view architecture) {
  const auto* found = std::ranges::find(kFamilies, architecture, &GgufFamily::architecture);
  return found == kFamilies.end() ? nullptr : found;
}

const GgufFamily& FindFamily(const DecoderSpec& spec, const ConfigReader& config) {
  if (const GgufFamily* family = FamilyOf(spec.architecture)) return *family;
  config.Fail("architectures", "'" + spec.architecture + "' is not written to gguf");
}

class Layout {
 public:
  Layout(const DecoderSpec& spec, const ConfigReader& config)
      : spec_(spec), config_(config), family_(FindFamily(spec, config)) {
    layout_.architecture = family_.name;
    CheckGraph();
    AddSizes();
    AddRope();
    AddMatrix({spec.embedding, spec.vocab, spec.hidden, false}, "token_embd", 0,
              GgufRole::kEmbedding, -1);
    for (int64_t i = 0; i < spec.layers(); ++i) AddBlock(i);
    layout_.vectors.push_back({spec.final_norm, "output_norm.weight", 0});
    if (!spec.tied) AddMatrix(spec.lm_head, "output", 0, GgufRole::kHead, -1);
  }

  GgufLayout Take() && { return std::move(layout_); }

 private:
  void Add(const std::string& key, GgufValue value) {
    layout_.metadata.push_back({layout_.architecture + "." + key, std::move(value)});
  }
  void AddCount(const std::string& key, int64_t count) { Add(key, static_cast<uint32_t>(count)); }

  void CheckGraph() const {
    if (spec_.activation != Activation::kSilu) {
      config_.Fail("hidden_act", "llama.cpp has only silu for " + layout_.architecture);
    }
    if (spec_.rope.rotary_dim != spec_.head_dim) {
      config_.Fail("partial_rotary_factor", "llama.cpp rotates whole heads of this family");
    }
    for (const BlockSpec& block : spec_.blocks) {
      for (const LinearSpec* linear : block.Linears()) {
        const bool input = linear == &block.query || linear == &block.key || linear == &block.value;
        if (!linear->bias || family_.any_bias || (input && family_.query_key_value_bias)) continue;
        config_.Fail("attention_bias", "llama.cpp has no bias for " + linear->name);
      }
    }
  }

  void AddSizes() {
    int64_t context = spec_.max_positions;
    for (const BlockSpec& block : spec_.blocks) {
      if (block.sliding_window > 0) context = std::min(context, block.sliding_window);
    }
    AddCount("context_length", context);
    AddCount("embedding_length", spec_.hidden);
    AddCount("block_count", spec_.layers());
    AddCount("feed_forward_length", spec_.ffn);
    AddCount("attention.head_count", spec_.heads);
    AddCount("attention.head_count_kv", spec_.kv_heads);
    AddCount("attention.key_length", spec_.head_dim);
    AddCount("attention.value_length", spec_.head_dim);
    Add("attention.layer_norm_rms_epsilon", spec_.norm_eps);
    AddCount("vocab_size", spec_.vocab);
  }

  void AddRope();
  void AddBlock(int64_t layer);

  void AddMatrix(const LinearSpec& linear, const std::string& name, int64_t heads, GgufRole role,
                 int64_t layer) {
    layout_.matrices.push_back({linear, name + ".weight", heads, role, layer});
    if (linear.bias) layout_.vectors.push_back({linear.name + ".bias", name + ".bias", heads});
  }

  const DecoderSpec& spec_;
  const ConfigReader& config_;
  const GgufFamily& family_;
  GgufLayout layout_;
};

void Layout::AddRope() {
  const RopeScaling rope = FindRopeScaling(config_);
  Add("rope.freq_base", static_cast<float>(rope.theta));
  AddCount("rope.dimension_count", spec_.rope.rotary_dim);
  if (rope.type == "default") return;
  const ConfigReader& scaling = *rope.settings;
  if (rope.type == "llama3") {
    for (const double divisor : Llama3Divisors(scaling, rope.theta, spec_.rope.rotary_dim)) {
      layout_.rope_divisors.push_back(static_cast<float>(divisor));
    }
    return;
  }
  Add("rope.scaling.type", rope.type);
  Add("rope.scaling.factor", static_cast<float>(scaling.Number("factor")));
  if (rope.type != "yarn") return;
  for (const char* key : {"attention_factor", "mscale", "mscale_all_dim"}) {
    if (scaling.Has(key)) scaling.Fail(key, "llama.cpp has its own, and quantmill cannot set it");
  }
  if (scaling.NumberOr("beta_fast", 32) != 32 || scaling.NumberOr("beta_slow", 1) != 1 ||
      !scaling.BoolOr("truncate", true)) {
    scaling.Fail("beta_fast", "llama.cpp's yarn has 32 and 1, truncated");
  }
  AddCount("rope.scaling.original_context_length",
           scaling.SizeOr("original_max_position_embeddings", spec_.max_positions));
}

void Layout::AddBlock(int64_t layer) {
  const BlockSpec& block = spec_.blocks[static_cast<size_t>(layer)];
  const std::string prefix = "blk." + std::to_string(layer) + ".";
  const auto vector = [&](const std::string& source, const char* name) {
    if (!source.empty()) layout_.vectors.push_back({source, prefix + name + ".weight", 0});
  };
  const auto matrix = [&](const LinearSpec& linear, const char* name, int64_t heads = 0,
                          GgufRole role = GgufRole::kLinear) {
    AddMatrix(linear, prefix + name, heads, role, layer);
  };
  vector(block.attention_norm, "attn_norm");
  matrix(block.query, "attn_q", family_.permuted ? spec_.heads : 0);
  matrix(block.key, "attn_k", family_.permuted ? spec_.kv_heads : 0);
  matrix(block.value, "attn_v", 0, GgufRole::kValueOrDown);
  matrix(block.output, "attn_output");
  vector(block.query_norm, "attn_q_norm");
  vector(block.key_norm, "attn_k_norm");
  vector(block.mlp_norm, "ffn_norm");
  matrix(block.gate, "ffn_gate");
  matrix(block.up, "ffn_up");
  matrix(block.down, "ffn_down", 0, GgufRole::kValueOrDown);
}

}  // namespace

bool HasGgufLayout(std::string_view architecture) { return FamilyOf(architecture) != nullptr; }

GgufLayout DescribeGguf(const DecoderSpec& spec, const ConfigReader& config) {
  return Layout(spec, config).Take();
}

int64_t RopeRow(int64_t row, int64_t rows, int64_t heads) {
  if (heads == 0) return row;
  const int64_t size = rows / heads;
  Check(size * heads == rows && size % 2 == 0, "RopeRow: heads of an even size");
  const int64_t in_head = row % size;
  return row - in_head + in_head / 2 + (in_head % 2) * (size / 2);
}

}  // namespace quantmill
