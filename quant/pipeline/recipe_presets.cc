#include "quant/pipeline/recipe_presets.h"

namespace quantmill {
namespace {

constexpr Preset kPresets[] = {
    {"w4a16-gptq", "4-bit weights, GPTQ with scale search: the default",
     "scheme: w4a16\nmethod: gptq\neffort: best\n"},
    {"w4a16-fast", "4-bit weights, GPTQ as published: half the time",
     "scheme: w4a16\nmethod: gptq\neffort: fast\n"},
    {"w4a16-awq", "4-bit weights with zero points, AWQ scales, rounded",
     "scheme: w4a16\nasymmetric: true\nmethod: awq+rtn\n"},
    {"w4a16-awq-gptq", "4-bit weights, AWQ scales, then GPTQ", "scheme: w4a16\nmethod: awq+gptq\n"},
    {"w4a16-rtn", "4-bit weights, rounded: seconds, needs no text", "scheme: w4a16\nmethod: rtn\n"},
    {"w3a16-gptq", "3-bit weights in groups of 64, GPTQ",
     "scheme: w3a16\ngroup_size: 64\nmethod: gptq\n"},
    {"w2a16-gptq", "2-bit weights, zero points, groups of 32, GPTQ: expect damage",
     "scheme: w2a16\ngroup_size: 32\nasymmetric: true\nmethod: gptq\n"},
    {"w8a16", "8-bit weights per channel, rounded: close to the original",
     "scheme: w8a16\nmethod: rtn\n"},
    {"w8a8-smoothquant", "int8 weights and inputs per token, smoothed, GPTQ",
     "scheme: w8a8\nmethod: smoothquant+gptq\n"},
    {"w8a8-static", "the same with one calibrated input scale per layer",
     "scheme: w8a8-static\nmethod: smoothquant+gptq\n"},
    {"fp8-dynamic", "E4M3 weights per channel, inputs per token; needs no text",
     "scheme: fp8\nmethod: rtn\n"},
    {"fp8-static", "E4M3 per tensor, calibrated input scales", "scheme: fp8-static\nmethod: rtn\n"},
    {"fp8-block", "E4M3 in 128x128 blocks, inputs per 128; needs no text",
     "scheme: fp8-block\nmethod: rtn\n"},
    {"mixed-4.5bit", "bits for each layer, 4.5 on average in groups of 64, GPTQ",
     "scheme: w4a16\ngroup_size: 64\nmethod: gptq\nbudget: 4.5bits\n"},
    {"mxfp4", "4-bit floats, a power of two per 32, GPTQ", "scheme: mxfp4\nmethod: gptq\n"},
    {"nvfp4", "4-bit floats, an E4M3 scale per 16, GPTQ", "scheme: nvfp4\nmethod: gptq\n"},
};

}  // namespace

std::span<const Preset> Presets() { return kPresets; }

const Preset* FindPreset(std::string_view name) {
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return &preset;
  }
  return nullptr;
}

std::vector<std::string> PresetNames() {
  std::vector<std::string> names;
  names.reserve(std::size(kPresets));
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

}  // namespace quantmill
