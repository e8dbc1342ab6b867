// Qwen2-MoE (also Qwen1.5-MoE): Qwen2's layout, a mixture of experts beside a shared one.
#include <algorithm>

#include "quant/model/families.h"
#include "quant/model/llama_layout.h"
#include "quant/model/mixture_layout.h"

namespace quantmill {
namespace {

// Unlike Qwen2: every other layer, from the first on, below max_window_layers.
void SetWindows(const ConfigReader& config, DecoderSpec& spec) {
  if (!config.BoolOr("use_sliding_window", false) || !config.Has("sliding_window")) return;
  const int64_t window = config.Size("sliding_window");
  if (config.Has("layer_types")) return SetSlidingWindows(config, window, 0, spec);
  const int64_t end = config.SizeOr("max_window_layers", 28);
  for (int64_t i = 0; i < std::min(spec.layers(), end); i += 2) {
    spec.blocks[static_cast<size_t>(i)].sliding_window = window;
  }
}

}  // namespace

DecoderSpec DescribeQwen2Moe(const ConfigReader& config) {
  LlamaVariation variation;
  variation.query_key_value_bias = config.BoolOr("qkv_bias", true);
  DecoderSpec spec = LlamaLayout(config, variation);
  SetWindows(config, spec);
  const MixtureVariation mixture{
      .module = "mlp",
      .gate = "gate_proj",
      .up = "up_proj",
      .down = "down_proj",
      .experts_key = "num_experts",
      .width_key = "moe_intermediate_size",
      .renormalize = config.BoolOr("norm_topk_prob", false),
      .shared_expert_ffn = config.Size("shared_expert_intermediate_size")};
  SetQwenMixtures(config, mixture, spec);
  return spec;
}

}  // namespace quantmill
