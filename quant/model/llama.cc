// Llama 1 to 3.x, and what shares its class (SmolLM2, Yi, TinyLlama, ...).
#include "quant/model/families.h"
#include "quant/model/llama_layout.h"

namespace quantmill {

DecoderSpec DescribeLlama(const ConfigReader& config) {
  LlamaVariation variation;
  variation.query_key_value_bias = config.BoolOr("attention_bias", false);
  variation.output_bias = variation.query_key_value_bias;
  variation.mlp_bias = config.BoolOr("mlp_bias", false);
  return LlamaLayout(config, variation);
}

}  // namespace quantmill
