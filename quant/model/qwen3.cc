// Qwen3 (dense): Llama's layout, RMSNorm on each head of q and k before rope, explicit head_dim.
#include "quant/model/families.h"
#include "quant/model/llama_layout.h"

namespace quantmill {

DecoderSpec DescribeQwen3(const ConfigReader& config) {
  LlamaVariation variation;
  variation.query_key_norm = true;
  variation.query_key_value_bias = config.BoolOr("attention_bias", false);
  variation.output_bias = variation.query_key_value_bias;
  DecoderSpec spec = LlamaLayout(config, variation);
  if (config.BoolOr("use_sliding_window", false) && config.Has("sliding_window")) {
    SetSlidingWindows(config, config.Size("sliding_window"),
                      config.SizeOr("max_window_layers", spec.layers()), spec);
  }
  return spec;
}

}  // namespace quantmill
