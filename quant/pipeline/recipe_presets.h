// The built-in recipes: files by another way, for `--recipe NAME` and `include: NAME`.
#ifndef QUANTMILL_QUANT_PIPELINE_RECIPE_PRESETS_H_
#define QUANTMILL_QUANT_PIPELINE_RECIPE_PRESETS_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quantmill {

struct Preset {
  std::string_view name;
  std::string_view summary;  // one line
  std::string_view yaml;     // a recipe file
};

// In the order in which they are listed.
std::span<const Preset> Presets();
const Preset* FindPreset(std::string_view name);  // null: none of that name
std::vector<std::string> PresetNames();

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_RECIPE_PRESETS_H_
