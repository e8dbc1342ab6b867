// Qwen3 (dense): Llama's layout, RMSNorm on each head of q and k before rope, explicit head_dim.
#include "quant/model/families.h"
#include "quant/model/llama_layout.h"

namespace quantmill {

DecoderSpec DescribeQwen3(const ConfigReader& config) {
  DecoderSpec spec = LlamaLayout(config, Qwen3Variation(config));
  SetQwenWindows(config, spec);
  return spec;
}

}  // namespace quantmill
