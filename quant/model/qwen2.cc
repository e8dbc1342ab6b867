// Qwen2 and Qwen2.5: Llama's layout with biases on q, k and v only.
#include "quant/model/families.h"
#include "quant/model/llama_layout.h"

namespace quantmill {

DecoderSpec DescribeQwen2(const ConfigReader& config) {
  LlamaVariation variation;
  variation.query_key_value_bias = true;
  DecoderSpec spec = LlamaLayout(config, variation);
  SetQwenWindows(config, spec);
  return spec;
}

}  // namespace quantmill
