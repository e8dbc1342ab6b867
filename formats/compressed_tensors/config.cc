#include "formats/compressed_tensors/config.h"

#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "formats/compressed_tensors/args.h"
#include "formats/compressed_tensors/layout.h"
#include "formats/config_field.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

using nlohmann::json;

constexpr std::string_view kMixed = "mixed-precision";

// Throws for a name that no layout has.
void CheckFormat(const ConfigField& field, const std::string& format) {
  static const std::set<std::string> known = {
      "pack-quantized",       "int-quantized",        "float-quantized", "naive-quantized",
      "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized"};
  if (known.contains(format)) return;
  std::string names;
  for (const std::string& name : known) names += (names.empty() ? "" : ", ") + name;
  field.Fail("format", "'" + format + "' cannot be read; known: " + names);
}

// Refuses the top-level features that change what a weight means.
std::string CheckTopLevel(const ConfigField& top) {
  std::string format = top.Text("format", "dense");
  if (format != kMixed) CheckFormat(top, format);
  const std::string status = top.Text("quantization_status", "compressed");
  if (status != "compressed") {
    top.Fail("quantization_status", "'" + status +
                                        "': the checkpoint is not compressed; finish it "
                                        "with the tool that made it");
  }
  top.MustBeEmpty("sparsity_config", "sparsity");
  top.MustBeEmpty("moe_sparsity_config", "expert sparsity");
  top.MustBeEmpty("transform_config", "a transform of the weights");
  return format;
}

QuantScheme ParseGroup(const ConfigField& group, const std::string& top_format,
                       const std::string& where) {
  group.AllowOnly({"targets", "weights", "input_activations", "output_activations", "format"});
  group.MustBeEmpty("output_activations", "quantized outputs");
  const json* weights = group.Get("weights");
  if (weights == nullptr) group.Fail("weights", "is missing");
  QuantScheme scheme = ParseWeightArgs(ConfigField(*weights, group.path() + ".weights", where));
  const json* inputs = group.Get("input_activations");
  if (inputs != nullptr && !inputs->empty()) {
    scheme.input = ParseInputArgs(ConfigField(*inputs, group.path() + ".input_activations", where));
  }
  // A group of a mixed file that names no format has the one that the library infers.
  const std::string format = group.Text("format", top_format);
  const CompressedTensorsLayout& layout = StoredLayout(scheme, format == "pack-quantized");
  if (const std::string problem = layout.Problem(scheme); !problem.empty()) {
    group.Fail("cannot be read: " + problem);
  }
  if (format != kMixed) {
    CheckFormat(group, format);
    if (!layout.IsReadableAs(format, scheme)) {
      group.Fail("format", "'" + format + "' of " + Describe(scheme) + " cannot be read, only '" +
                               std::string(layout.FormatOf(scheme)) + "'");
    }
  }
  return scheme;
}

}  // namespace

int CompressedTensorsConfig::Target::Match(const std::string& module) const {
  if (pattern) {
    bool matches = false;
    pattern->ForEachMatch(module, [&](size_t, size_t) { matches = true; });
    return matches ? 2 : 0;
  }
  if (text == module) return 3;
  return text == "Linear" ? 1 : 0;
}

std::vector<CompressedTensorsConfig::Target> CompressedTensorsConfig::ParseTargets(
    const json& list, const std::string& where) {
  const auto fail = [&] { throw Error(ErrorCode::kBadInput, where, "must be a list of strings"); };
  if (!list.is_array()) fail();
  std::vector<Target> targets;
  for (const json& entry : list) {
    if (!entry.is_string()) fail();
    Target target{entry.get<std::string>(), std::nullopt};
    if (target.text.starts_with("re:")) {
      // As re.match does: from the start of the name, not necessarily to its end.
      target.pattern = Regex::FromPcre("\\A(?:" + target.text.substr(3) + ")", where);
    }
    targets.push_back(std::move(target));
  }
  return targets;
}

CompressedTensorsConfig CompressedTensorsConfig::Parse(const json& config,
                                                       const std::string& where) {
  const ConfigField top(config, "quantization_config", where);
  const std::string top_format = CheckTopLevel(top);
  CompressedTensorsConfig result;
  result.where_ = where;
  if (const json* kv = top.Get("kv_cache_scheme"); kv != nullptr && !kv->empty()) {
    result.kv_scheme_ = ParseKvArgs(ConfigField(*kv, top.path() + ".kv_cache_scheme", where));
  }
  if (const json* ignore = top.Get("ignore")) {
    result.ignore_ = ParseTargets(*ignore, where + ": quantization_config.ignore");
  }
  const json* groups = top.Get("config_groups");
  if (groups == nullptr || groups->empty()) top.Fail("config_groups", "is missing or empty");
  if (!groups->is_object()) top.Fail("config_groups", "must be an object");
  for (const auto& [name, value] : groups->items()) {
    const ConfigField group(value, top.path() + ".config_groups." + name, where);
    const QuantScheme scheme = ParseGroup(group, top_format, where);
    const json* targets = group.Get("targets");
    if (targets == nullptr) group.Fail("targets", "is missing");
    const ConfigField weights(*group.Get("weights"), group.path() + ".weights", where);
    result.groups_.push_back({name,
                              ParseTargets(*targets, where + ": " + group.path() + ".targets"),
                              scheme, ParseActOrder(weights)});
    for (const Target& target : result.groups_.back().targets) {
      // A class has no dot; a module below the root has.
      const bool exact = !target.pattern && target.text.find('.') != std::string::npos;
      if (exact) result.exact_targets_.push_back(target.text);
    }
  }
  return result;
}

const CompressedTensorsConfig::Group* CompressedTensorsConfig::GroupOf(
    const std::string& module) const {
  for (const Target& target : ignore_) {
    if (target.Match(module) > 0) return nullptr;
  }
  int best = 0;
  const Group* chosen = nullptr;
  for (const Group& group : groups_) {
    for (const Target& target : group.targets) {
      const int rank = target.Match(module);
      const bool differs = chosen != nullptr &&
                           (chosen->scheme != group.scheme || chosen->act_order != group.act_order);
      if (rank > 0 && rank == best && differs) {
        throw Error(ErrorCode::kBadInput, where_,
                    "module '" + module + "' belongs to the groups " + chosen->name + " and " +
                        group.name + ", which differ");
      }
      if (rank > best) {
        best = rank;
        chosen = &group;
      }
    }
  }
  return chosen;
}

std::optional<QuantScheme> CompressedTensorsConfig::SchemeFor(const std::string& module) const {
  const Group* group = GroupOf(module);
  return group == nullptr ? std::nullopt : std::optional(group->scheme);
}

bool CompressedTensorsConfig::HasActOrder(const std::string& module) const {
  const Group* group = GroupOf(module);
  return group != nullptr && group->act_order;
}

}  // namespace quantmill
