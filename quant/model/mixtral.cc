// Mixtral: Mistral's layout, a mixture of experts in every layer.
#include "quant/model/families.h"
#include "quant/model/mixture_layout.h"

namespace quantmill {

DecoderSpec DescribeMixtral(const ConfigReader& config) {
  if (!config.Has("rope_theta") && !config.Has("rope_parameters")) {
    config.Fail("rope_theta", "missing; Mixtral's own is 1000000.0");
  }
  DecoderSpec spec = DescribeMistral(config);
  spec.norm_eps = static_cast<float>(config.NumberOr("rms_norm_eps", 1e-5));
  MixtureVariation variation{.module = "block_sparse_moe",
                             .gate = "w1",
                             .up = "w3",
                             .down = "w2",
                             .experts_key = "num_local_experts",
                             .width_key = "intermediate_size",
                             .renormalize = true};
  for (BlockSpec& block : spec.blocks) SetMixture(config, variation, spec.hidden, block);
  return spec;
}

}  // namespace quantmill
