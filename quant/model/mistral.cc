// Mistral: Llama's layout, no biases, a sliding window in every layer (null: none).
#include "quant/model/families.h"
#include "quant/model/llama_layout.h"

namespace quantmill {

DecoderSpec DescribeMistral(const ConfigReader& config) {
  DecoderSpec spec = LlamaLayout(config, {});
  if (config.Has("sliding_window")) {
    SetSlidingWindows(config, config.Size("sliding_window"), 0, spec);
  }
  return spec;
}

}  // namespace quantmill
