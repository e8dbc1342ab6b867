// Phi-3, Phi-3.5 and Phi-4: Llama's layout with q, k and v in one linear, gate and up in another,
// and a sliding window in every layer (null: none).
#include "quant/model/families.h"
#include "quant/model/llama_layout.h"

namespace quantmill {

DecoderSpec DescribePhi3(const ConfigReader& config) {
  DecoderSpec spec = LlamaLayout(config, {});
  for (BlockSpec& block : spec.blocks) {
    block.FuseQueryKeyValue(block.attention + ".qkv_proj", 1);
    block.FuseGateUp(block.prefix + ".mlp.gate_up_proj");
  }
  if (config.Has("sliding_window")) {
    SetSlidingWindows(config, config.Size("sliding_window"), 0, spec);
  }
  return spec;
}

}  // namespace quantmill
