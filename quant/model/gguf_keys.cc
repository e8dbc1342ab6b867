#include "quant/model/gguf_keys.h"

#include <algorithm>
#include <string>
#include <utility>

#include "quant/model/rope.h"

namespace quantmill {
namespace {

class Keys {
 public:
  Keys(const DecoderSpec& spec, const ConfigReader& config, const GgufFamily& family,
       GgufLayout& layout)
      : spec_(spec), config_(config), family_(family), layout_(layout) {
    AddSizes();
    if (family.experts != GgufExperts::kNone) AddExperts();
    if (family.window_period > 0) AddWindows();
    // Older programs want to be told of windows that newer ones lack: Context() is right for both.
    if (family.rope_factors) AddCount("attention.sliding_window", Window());
    if (family.softcaps) AddSoftcaps();
    if (family.residual == GgufResidual::kSaid) {
      Add("use_parallel_residual", spec.order == BlockOrder::kParallel);
    }
    if (family.name == "falcon") Add("tensor_data_layout", std::string("jploski"));
    if (spec.rope.rotary_dim > 0) AddRope();
  }

 private:
  void Add(const std::string& key, GgufValue value) {
    layout_.metadata.push_back({layout_.architecture + "." + key, std::move(value)});
  }
  void AddCount(const std::string& key, int64_t count) { Add(key, static_cast<uint32_t>(count)); }
  void AddTable(const std::string& name, std::vector<float> values) {
    layout_.tables.push_back({name, std::move(values)});
  }

  int64_t Window() const;  // the shortest; 0: none
  int64_t Context() const;
  void AddSizes();
  void AddExperts();
  void AddWindows();
  void AddSoftcaps();
  void AddRope();
  void AddScaling(const RopeScaling& rope);
  void AddLlama3(const RopeScaling& rope);
  void AddYarn(const ConfigReader& scaling);
  void AddLongRope(const ConfigReader& scaling);

  const DecoderSpec& spec_;
  const ConfigReader& config_;
  const GgufFamily& family_;
  GgufLayout& layout_;
};

int64_t Keys::Window() const {
  int64_t window = 0;
  for (const BlockSpec& block : spec_.blocks) {
    if (block.sliding_window == 0) continue;
    window = window == 0 ? block.sliding_window : std::min(window, block.sliding_window);
  }
  return window;
}

int64_t Keys::Context() const {
  if (family_.window_period > 0 || Window() == 0) return spec_.max_positions;
  return std::min(spec_.max_positions, Window());
}

void Keys::AddSizes() {
  AddCount("context_length", Context());
  AddCount("embedding_length", spec_.hidden);
  AddCount("block_count", spec_.layers());
  // Of a Qwen mixture it is the width of MLPs that no layer has, and must be there all the same.
  AddCount("feed_forward_length", config_.SizeOr("intermediate_size", spec_.ffn));
  AddCount("attention.head_count", spec_.heads);
  AddCount("attention.head_count_kv", spec_.kv_heads);
  AddCount("attention.key_length", spec_.head_dim);
  AddCount("attention.value_length", spec_.head_dim);
  Add(spec_.norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon"
                                   : "attention.layer_norm_epsilon",
      spec_.norm_eps);
  AddCount("vocab_size", spec_.vocab);
}

void Keys::AddExperts() {
  const BlockSpec& block = spec_.blocks.front();
  AddCount("expert_count", std::ssize(block.mixture.experts));
  AddCount("expert_used_count", block.mixture.top_k);
  if (family_.name == "llama") return;  // experts are feed_forward_length wide there
  AddCount("expert_feed_forward_length", spec_.ffn);
  if (block.up.out > 0) AddCount("expert_shared_feed_forward_length", block.up.out);
}

// Layer i sees everything where i + 1 is a multiple of the period.
void Keys::AddWindows() {
  const auto fits = [&](int64_t period) {
    for (int64_t i = 0; i < spec_.layers(); ++i) {
      const bool full = spec_.blocks[static_cast<size_t>(i)].sliding_window == 0;
      if (full != ((i + 1) % period == 0)) return false;
    }
    return true;
  };
  int64_t period = family_.window_period;
  for (int64_t next = 2; !fits(period); ++next) {
    period = next;
    if (period <= spec_.layers() + 1) continue;
    config_.Fail("layer_types",
                 "llama.cpp has one layer in every so many that sees everything, and a sliding "
                 "window in the others");
  }
  AddCount("attention.sliding_window", spec_.blocks.front().sliding_window);
  // Older programs do not know it, and need not where it is the usual one.
  if (period != family_.window_period) AddCount("attention.sliding_window_pattern", period);
}

void Keys::AddSoftcaps() {
  Add("attn_logit_softcapping", spec_.attention_softcap);
  Add("final_logit_softcapping", spec_.logit_softcap);
}

void Keys::AddRope() {
  Add("rope.freq_base", static_cast<float>(spec_.rope.theta));
  AddCount("rope.dimension_count", spec_.rope.rotary_dim);
  constexpr double kUsualWindowTheta = 10000;
  if (spec_.window_rope.rotary_dim > 0 && spec_.window_rope.theta != kUsualWindowTheta) {
    Add("rope.freq_base_swa", static_cast<float>(spec_.window_rope.theta));
  }
  const RopeScaling rope = FindMainRopeScaling(config_);
  if (rope.type != "default") AddScaling(rope);
}

void Keys::AddScaling(const RopeScaling& rope) {
  const ConfigReader& scaling = *rope.settings;
  const auto refuse = [&] {
    scaling.Fail("rope_type", "llama.cpp's " + std::string(family_.name) + " does not scale by '" +
                                  rope.type + "'");
  };
  if (rope.type == "llama3") {
    if (!family_.rope_freqs) refuse();
    return AddLlama3(rope);
  }
  if (rope.type == "longrope" || rope.type == "su") {
    if (!family_.rope_factors) refuse();
    return AddLongRope(scaling);
  }
  Add("rope.scaling.type", rope.type);
  Add("rope.scaling.factor", static_cast<float>(scaling.Number("factor")));
  if (rope.type != "yarn") return;
  if (spec_.window_rope.rotary_dim > 0) refuse();  // it would scale the windows' layers too
  AddYarn(scaling);
}

void Keys::AddLlama3(const RopeScaling& rope) {
  std::vector<float> divisors;
  for (const double d : Llama3Divisors(*rope.settings, rope.theta, spec_.rope.rotary_dim)) {
    divisors.push_back(static_cast<float>(d));
  }
  AddTable("rope_freqs.weight", std::move(divisors));
}

void Keys::AddYarn(const ConfigReader& scaling) {
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

// No scaling type: longrope is known by its tensors.
void Keys::AddLongRope(const ConfigReader& scaling) {
  AddCount("rope.scaling.original_context_length", spec_.rope.original_positions);
  Add("rope.scaling.attn_factor", spec_.rope.amplitude);
  for (const std::string kind : {"long", "short"}) {
    AddTable("rope_factors_" + kind + ".weight",
             scaling.json().at(kind + "_factor").get<std::vector<float>>());
  }
}

}  // namespace

void DescribeGgufKeys(const DecoderSpec& spec, const ConfigReader& config, const GgufFamily& family,
                      GgufLayout& layout) {
  const Keys keys(spec, config, family, layout);
}

}  // namespace quantmill
