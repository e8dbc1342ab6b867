#include "quant/model/gguf_graph.h"

#include <cmath>
#include <string>

#include "quant/model/rope.h"

namespace quantmill {
namespace {

class GraphCheck {
 public:
  GraphCheck(const DecoderSpec& spec, const ConfigReader& config, const GgufFamily& family)
      : spec_(spec),
        config_(config),
        family_(family),
        name_("llama.cpp's " + std::string(family.name)) {
    CheckActivation();
    CheckPositions();
    CheckResidual();
    CheckAttention();
    CheckSoftcaps();
    CheckHead();
    for (const BlockSpec& block : spec.blocks) {
      CheckBiases(block);
      if (family.experts != GgufExperts::kNone) CheckExperts(block);
    }
  }

 private:
  void CheckActivation() const;
  void CheckPositions() const;
  void CheckResidual() const;
  void CheckAttention() const;
  void CheckSoftcaps() const;
  void CheckHead() const;
  void CheckBiases(const BlockSpec& block) const;
  void CheckExperts(const BlockSpec& block) const;

  const DecoderSpec& spec_;
  const ConfigReader& config_;
  const GgufFamily& family_;
  std::string name_;
};

void GraphCheck::CheckActivation() const {
  if (spec_.activation == family_.activation) return;
  const bool nearly =
      family_.activation == Activation::kGelu && spec_.activation == Activation::kGeluTanh;
  if (nearly) return;
  const char* own = family_.activation == Activation::kSilu ? "silu" : "gelu, in its tanh form";
  for (const char* key : {"hidden_activation", "activation_function", "activation"}) {
    if (config_.Has(key)) config_.Fail(key, name_ + " has only " + own);
  }
  config_.Fail("hidden_act", name_ + " has only " + own);
}

void GraphCheck::CheckPositions() const {
  const bool alibi = !spec_.alibi_slopes.empty();
  if (alibi != (family_.positions == GgufPositions::kAlibi)) {
    config_.Fail("alibi", name_ + (alibi ? " has no ALiBi" : " has ALiBi"));
  }
  if (family_.positions == GgufPositions::kRope && spec_.rope.rotary_dim != spec_.head_dim) {
    config_.Fail("partial_rotary_factor", name_ + " rotates whole heads");
  }
  if (spec_.window_rope.rotary_dim > 0 && !IsPlain(spec_.window_rope)) {
    config_.Fail("rope_parameters", name_ + " scales no frequencies of layers with a window");
  }
}

void GraphCheck::CheckResidual() const {
  if (family_.residual == GgufResidual::kSaid) return;
  const bool parallel = family_.residual == GgufResidual::kParallel;
  if (parallel == (spec_.order == BlockOrder::kParallel)) return;
  config_.Fail("parallel_attn", name_ + (parallel ? " has attention and MLP side by side"
                                                  : " has attention and MLP in sequence"));
}

void GraphCheck::CheckAttention() const {
  if (family_.square_attention && spec_.heads * spec_.head_dim != spec_.hidden) {
    config_.Fail("head_dim", name_ + " has heads that fill the hidden size");
  }
  const float own =
      GgufAttentionScale(family_, spec_.layers(), spec_.hidden, spec_.heads, spec_.head_dim);
  if (spec_.attention_scale == 0 || std::abs(spec_.attention_scale / own - 1) < 1e-6f) return;
  config_.Fail("query_pre_attn_scalar", name_ + " has " +
                                            std::to_string(std::lround(1 / (own * own))) +
                                            " in a model of these sizes, and no file can say "
                                            "otherwise");
}

void GraphCheck::CheckSoftcaps() const {
  const bool scores = spec_.attention_softcap > 0;
  const bool logits = spec_.logit_softcap > 0;
  if (scores == family_.softcaps && logits == family_.softcaps) return;
  config_.Fail(scores == family_.softcaps ? "final_logit_softcapping" : "attn_logit_softcapping",
               name_ + (family_.softcaps ? " caps both scores and logits" : " has no soft caps"));
}

void GraphCheck::CheckHead() const {
  if (family_.head == GgufHead::kOwn && spec_.tied) {
    config_.Fail("tie_word_embeddings", name_ + " has a head of its own");
  }
  if (family_.head == GgufHead::kTied && !spec_.tied) {
    config_.Fail("tie_word_embeddings", name_ + " takes the embedding for its head");
  }
}

void GraphCheck::CheckBiases(const BlockSpec& block) const {
  for (const LinearSpec* linear : block.Linears()) {
    const bool input = linear == &block.query || linear == &block.key || linear == &block.value;
    const bool possible = family_.biases == GgufBiases::kAny ||
                          family_.biases == GgufBiases::kAll ||
                          (input && family_.biases == GgufBiases::kQueryKeyValue);
    if (linear->bias && !possible) {
      config_.Fail("attention_bias", name_ + " has no bias for " + linear->name);
    }
    if (!linear->bias && family_.biases == GgufBiases::kAll) {
      config_.Fail("attention_bias", name_ + " wants a bias of " + linear->name);
    }
  }
}

void GraphCheck::CheckExperts(const BlockSpec& block) const {
  if (!block.is_mixture()) {
    config_.Fail(config_.Has("mlp_only_layers") ? "mlp_only_layers" : "decoder_sparse_step",
                 name_ + " has experts in every layer, and " + block.prefix + " has none");
  }
  if (block.mixture.renormalize != (family_.experts == GgufExperts::kRenormalized)) {
    config_.Fail("norm_topk_prob", name_ + " has the other value, and no file can say so");
  }
}

}  // namespace

void CheckGgufGraph(const DecoderSpec& spec, const ConfigReader& config, const GgufFamily& family) {
  const GraphCheck check(spec, config, family);
}

float GgufAttentionScale(const GgufFamily& family, int64_t layers, int64_t hidden, int64_t heads,
                         int64_t head_dim) {
  const bool wide = family.wide_scale_layers > 0 && layers == family.wide_scale_layers;
  return 1 / std::sqrt(static_cast<float>(wide ? hidden / heads : head_dim));
}

}  // namespace quantmill
