// Blocks whose MLP is a mixture of experts: what Mixtral, Qwen2-MoE and Qwen3-MoE have in common.
#ifndef QUANTMILL_QUANT_MODEL_MIXTURE_LAYOUT_H_
#define QUANTMILL_QUANT_MODEL_MIXTURE_LAYOUT_H_

#include <cstdint>
#include <string>

#include "quant/model/config_reader.h"
#include "quant/model/decoder_spec.h"

namespace quantmill {

struct MixtureVariation {
  std::string module;             // of a block: "mlp"; holds "gate" (the router) and "experts"
  std::string gate, up, down;     // of an expert: "gate_proj", ...
  const char* experts_key;        // config.json: how many
  const char* width_key;          // and the width of each
  bool renormalize = false;       // MixtureSpec::renormalize
  int64_t shared_expert_ffn = 0;  // of "shared_expert", scaled by "shared_expert_gate"; 0: none
};

// Makes `block` of a Llama layout a mixture; its MLP becomes the shared expert, or nothing. top_k
// is num_experts_per_tok. Error(kBadInput) naming the key where a size is missing or out of range.
void SetMixture(const ConfigReader& config, const MixtureVariation& variation, int64_t hidden,
                BlockSpec& block);

// Qwen's rule: layer i (from 0) is a mixture where i + 1 is a multiple of decoder_sparse_step and
// mlp_only_layers does not list it; other layers keep their MLP of intermediate_size. spec.ffn
// becomes the experts' width where there is a mixture.
void SetQwenMixtures(const ConfigReader& config, const MixtureVariation& variation,
                     DecoderSpec& spec);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_MIXTURE_LAYOUT_H_
