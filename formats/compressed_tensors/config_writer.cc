#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "formats/compressed_tensors/args.h"
#include "formats/compressed_tensors/config.h"
#include "formats/compressed_tensors/layout.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

using nlohmann::json;

// The release whose reader and writer these layouts were checked against, byte for byte.
constexpr std::string_view kLibraryVersion = "0.20.0";

// Schemes that differ only in the type of their scales share a group; that of FP4 is said by its
// group size.
bool SameGroup(QuantScheme a, const QuantScheme& b) {
  a.scale_dtype = b.scale_dtype;
  return a == b;
}

}  // namespace

json MakeCompressedTensorsConfig(std::span<const QuantizedModule> modules,
                                 std::span<const std::string> dense, const KvScheme& kv) {
  Check(!modules.empty(), "a quantization_config needs a quantized module");
  std::vector<std::pair<QuantScheme, std::vector<std::string>>> groups;
  bool head_quantized = false;
  for (const QuantizedModule& module : modules) {
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& candidate) {
      return SameGroup(candidate.first, module.scheme);
    });
    if (group == groups.end()) group = groups.insert(group, {module.scheme, {}});
    group->second.push_back(module.name);
    head_quantized |= module.name == "lm_head";
  }
  std::vector<std::string> ignore(dense.begin(), dense.end());
  // A head tied to the embedding has no tensor and so may not be listed as dense, yet it is a
  // Linear to the loaders.
  if (!head_quantized && std::find(ignore.begin(), ignore.end(), "lm_head") == ignore.end()) {
    ignore.emplace_back("lm_head");
  }
  std::set<std::string_view> formats;
  for (const auto& [scheme, names] : groups) formats.insert(LayoutOf(scheme).FormatOf(scheme));
  const bool mixed = formats.size() > 1;
  json config_groups = json::object();
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto& [scheme, names] = groups[i];
    const json targets = groups.size() == 1 ? json::array({"Linear"}) : json(names);
    config_groups["group_" + std::to_string(i)] = {{"targets", targets},
                                                   {"weights", WeightArgs(scheme)},
                                                   {"input_activations", InputArgs(scheme.input)},
                                                   {"output_activations", nullptr}};
    // Old releases of the library do not know the key, nor mixed files.
    if (mixed) {
      config_groups["group_" + std::to_string(i)]["format"] = LayoutOf(scheme).FormatOf(scheme);
    }
  }
  return {{"quant_method", "compressed-tensors"},
          {"version", kLibraryVersion},
          {"format", mixed ? "mixed-precision" : *formats.begin()},
          {"quantization_status", "compressed"},
          {"global_compression_ratio", nullptr},
          {"kv_cache_scheme", KvArgs(kv)},
          {"ignore", ignore},
          {"config_groups", config_groups}};
}

}  // namespace quantmill
