// What Llama, Mistral, Qwen2 and Qwen3 have in common: tensor names and a gated MLP under RMSNorm.
#ifndef QUANTMILL_QUANT_MODEL_LLAMA_LAYOUT_H_
#define QUANTMILL_QUANT_MODEL_LLAMA_LAYOUT_H_

#include "quant/model/config_reader.h"
#include "quant/model/decoder_spec.h"

namespace quantmill {

struct LlamaVariation {
  bool query_key_value_bias = false;
  bool output_bias = false;
  bool mlp_bias = false;
  bool query_key_norm = false;  // RMSNorm of each head of q and k before rope
};

// Sizes, rope and names of every tensor. tie_word_embeddings is false when absent (the class
// default of these families); sliding windows are left 0.
DecoderSpec LlamaLayout(const ConfigReader& config, const LlamaVariation& variation);

// Applies layer_types ("full_attention" | "sliding_attention") where the configuration has it;
// otherwise layers from `first_sliding` on get the window.
void SetSlidingWindows(const ConfigReader& config, int64_t window, int64_t first_sliding,
                       DecoderSpec& spec);

// What Qwen2 and Qwen3 do: where use_sliding_window says so, layers from max_window_layers on.
void SetQwenWindows(const ConfigReader& config, DecoderSpec& spec);

// Qwen3's, of its mixtures too.
LlamaVariation Qwen3Variation(const ConfigReader& config);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_LLAMA_LAYOUT_H_
