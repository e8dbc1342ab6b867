#include "quant/model/gguf_family.h"

#include <algorithm>
#include <array>

namespace quantmill {
namespace {

// src/models/<name>.cpp of llama.cpp is the source of each row.
constexpr std::array kFamilies = {
    GgufFamily{.architecture = "LlamaForCausalLM",
               .model_type = "llama",
               .name = "llama",
               .biases = GgufBiases::kAny,
               .permuted = true,
               .rope_freqs = true},
    GgufFamily{.architecture = "MistralForCausalLM",
               .model_type = "mistral",
               .name = "llama",
               .biases = GgufBiases::kAny,
               .permuted = true,
               .rope_freqs = true},
    GgufFamily{.architecture = "MixtralForCausalLM",
               .model_type = "mixtral",
               .name = "llama",
               .experts = GgufExperts::kRenormalized,
               .permuted = true,
               .rope_freqs = true},
    GgufFamily{.architecture = "Qwen2ForCausalLM",
               .model_type = "qwen2",
               .name = "qwen2",
               .biases = GgufBiases::kQueryKeyValue},
    GgufFamily{.architecture = "Qwen2MoeForCausalLM",
               .model_type = "qwen2_moe",
               .name = "qwen2moe",
               .biases = GgufBiases::kQueryKeyValue,
               .experts = GgufExperts::kAsRouted,
               .head = GgufHead::kOwn,
               .square_attention = true},
    GgufFamily{.architecture = "Qwen3ForCausalLM", .model_type = "qwen3", .name = "qwen3"},
    GgufFamily{.architecture = "Qwen3MoeForCausalLM",
               .model_type = "qwen3_moe",
               .name = "qwen3moe",
               .experts = GgufExperts::kRenormalized},
    GgufFamily{.architecture = "Gemma2ForCausalLM",
               .model_type = "gemma2",
               .name = "gemma2",
               .activation = Activation::kGeluTanh,
               .head = GgufHead::kTied,
               .softcaps = true,
               .window_period = 2,
               .wide_scale_layers = 46},
    GgufFamily{.architecture = "Gemma3ForCausalLM",
               .model_type = "gemma3_text",
               .name = "gemma3",
               .activation = Activation::kGeluTanh,
               .head = GgufHead::kTied,
               .window_period = 6,
               .wide_scale_layers = 62},
    GgufFamily{.architecture = "Phi3ForCausalLM",
               .model_type = "phi3",
               .name = "phi3",
               .positions = GgufPositions::kPartialRope,
               .rope_factors = true,
               .square_attention = true},
    GgufFamily{.architecture = "GPTNeoXForCausalLM",
               .model_type = "gpt_neox",
               .name = "gptneox",
               .norm = NormKind::kLayer,
               .activation = Activation::kGelu,
               .positions = GgufPositions::kPartialRope,
               .residual = GgufResidual::kSaid,
               .biases = GgufBiases::kAll,
               .head = GgufHead::kOwn},
    GgufFamily{.architecture = "GPT2LMHeadModel",
               .model_type = "gpt2",
               .name = "gpt2",
               .norm = NormKind::kLayer,
               .activation = Activation::kGeluTanh,
               .positions = GgufPositions::kTable,
               .biases = GgufBiases::kAll},
    GgufFamily{.architecture = "FalconForCausalLM",
               .model_type = "falcon",
               .name = "falcon",
               .norm = NormKind::kLayer,
               .activation = Activation::kGelu,
               .residual = GgufResidual::kParallel,
               .mlp_norm_first = true},
    GgufFamily{.architecture = "BloomForCausalLM",
               .model_type = "bloom",
               .name = "bloom",
               .norm = NormKind::kLayer,
               .activation = Activation::kGeluTanh,
               .positions = GgufPositions::kAlibi,
               .biases = GgufBiases::kAll},
};

}  // namespace

std::span<const GgufFamily> GgufFamilies() { return kFamilies; }

const GgufFamily* FindGgufFamily(std::string_view architecture) {
  const auto* found = std::ranges::find(kFamilies, architecture, &GgufFamily::architecture);
  return found == kFamilies.end() ? nullptr : found;
}

const GgufFamily* FindGgufFamily(std::string_view name, bool has_experts) {
  const auto* found = std::ranges::find_if(kFamilies, [&](const GgufFamily& family) {
    return family.name == name && (family.experts != GgufExperts::kNone) == has_experts;
  });
  return found == kFamilies.end() ? nullptr : found;
}

}  // namespace quantmill
