// Qwen3-MoE: Qwen3's layout, a mixture of experts without a shared one.
#include "quant/model/families.h"
#include "quant/model/llama_layout.h"
#include "quant/model/mixture_layout.h"

namespace quantmill {

DecoderSpec DescribeQwen3Moe(const ConfigReader& config) {
  DecoderSpec spec = LlamaLayout(config, Qwen3Variation(config));
  if (config.BoolOr("use_sliding_window", false) && config.Has("sliding_window")) {
    for (BlockSpec& block : spec.blocks) block.sliding_window = config.Size("sliding_window");
  }
  const MixtureVariation mixture{.module = "mlp",
                                 .gate = "gate_proj",
                                 .up = "up_proj",
                                 .down = "down_proj",
                                 .experts_key = "num_experts",
                                 .width_key = "moe_intermediate_size",
                                 .renormalize = config.BoolOr("norm_topk_prob", false)};
  SetQwenMixtures(config, mixture, spec);
  return spec;
}

}  // namespace quantmill
