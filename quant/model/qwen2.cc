// Qwen2 and Qwen2.5: Llama's layout with biases on q, k and v only.
#include "quant/model/families.h"
#include "quant/model/llama_layout.h"

namespace quantmill {

DecoderSpec DescribeQwen2(const ConfigReader& config) {
  LlamaVariation variation;
  variation.query_key_value_bias = true;
  DecoderSpec spec = LlamaLayout(config, variation);
  if (config.BoolOr("use_sliding_window", false) && config.Has("sliding_window")) {
    // Layers below max_window_layers attend to everything.
    SetSlidingWindows(config, config.Size("sliding_window"),
                      config.SizeOr("max_window_layers", spec.layers()), spec);
  }
  return spec;
}

}  // namespace quantmill
