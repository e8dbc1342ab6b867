#include "formats/compressed_tensors_config.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

using nlohmann::json;

// The release whose reader and writer this layout was checked against, byte for byte.
constexpr std::string_view kLibraryVersion = "0.20.0";
constexpr std::string_view kPackQuantized = "pack-quantized";

// Walks into a JSON object and refuses, with the path of the key, what it does not like.
class Field {
 public:
  Field(const json& value, std::string path, const std::string& where)
      : value_(value), path_(std::move(path)), where_(where) {
    if (!value_.is_object()) Fail("must be an object");
  }

  [[noreturn]] void Fail(const std::string& what) const {
    throw Error(ErrorCode::kBadInput, where_, path_ + ": " + what);
  }
  [[noreturn]] void Fail(const std::string& key, const std::string& what) const {
    throw Error(ErrorCode::kBadInput, where_, path_ + "." + key + ": " + what);
  }

  const json& value() const { return value_; }
  const std::string& path() const { return path_; }
  // Null if the key is absent or its value is null, which means the same everywhere here.
  const json* Get(const std::string& key) const {
    const auto found = value_.find(key);
    return found == value_.end() || found->is_null() ? nullptr : &*found;
  }
  // Lower case, as the library reads its enumerations.
  std::string Text(const std::string& key, const std::string& otherwise) const {
    const json* text = Get(key);
    if (text == nullptr) return otherwise;
    if (!text->is_string()) Fail(key, "must be a string, not " + text->dump());
    auto lower = text->get<std::string>();
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return lower;
  }
  bool Bool(const std::string& key, bool otherwise) const {
    const json* flag = Get(key);
    if (flag == nullptr) return otherwise;
    if (!flag->is_boolean()) Fail(key, "must be true or false, not " + flag->dump());
    return flag->get<bool>();
  }
  std::optional<int64_t> Integer(const std::string& key) const {
    const json* number = Get(key);
    if (number == nullptr) return std::nullopt;
    if (!number->is_number_integer()) Fail(key, "must be a whole number, not " + number->dump());
    return number->get<int64_t>();
  }
  // Absent, null, or an empty object or list; anything else asks for `feature`.
  void MustBeEmpty(const std::string& key, const std::string& feature) const {
    const json* value = Get(key);
    if (value != nullptr && !value->empty()) Fail(key, feature + " cannot be read");
  }
  void AllowOnly(const std::set<std::string>& keys) const {
    for (const auto& [key, unused] : value_.items()) {
      if (!keys.contains(key)) Fail(key, "unknown key (the format's own library refuses it too)");
    }
  }

 private:
  const json& value_;
  std::string path_;
  const std::string& where_;
};

int64_t ParseGroupSize(const Field& args) {
  const std::optional<int64_t> group_size = args.Integer("group_size");
  const std::string inferred = !group_size ? "tensor" : *group_size > 0 ? "group" : "channel";
  const std::string strategy = args.Text("strategy", inferred);
  if (strategy == "channel") {
    if (group_size && *group_size != -1) args.Fail("group_size", "must be -1 for channels");
    return QuantScheme::kPerChannel;
  }
  if (strategy == "group") {
    if (!group_size || *group_size <= 0) args.Fail("group_size", "must be positive for groups");
    return *group_size;
  }
  args.Fail("strategy", "'" + strategy + "' cannot be read, only group and channel");
}

void RefuseActOrder(const Field& args) {
  const json* order = args.Get("actorder");
  if (order == nullptr || *order == json(false)) return;
  const std::string name = order->is_string() ? args.Text("actorder", "") : order->dump();
  // "weight" (alias "static") orders columns while quantizing only; the file is as without.
  if (name == "weight" || name == "static") return;
  args.Fail("actorder", "'" + name + "' (weight_g_idx) cannot be read");
}

PackedWeightArgs ParseWeightArgs(const Field& args) {
  args.AllowOnly({"num_bits", "type", "symmetric", "group_size", "strategy", "block_structure",
                  "dynamic", "actorder", "scale_dtype", "zp_dtype", "observer", "observer_kwargs"});
  if (const std::string type = args.Text("type", "int"); type != "int") {
    args.Fail("type", "'" + type + "' cannot be read, only int");
  }
  const json* dynamic = args.Get("dynamic");
  if (dynamic != nullptr && *dynamic != json(false)) args.Fail("dynamic", "weights are static");
  args.MustBeEmpty("block_structure", "a block structure");
  RefuseActOrder(args);
  const int64_t bits = args.Integer("num_bits").value_or(8);
  if (bits < 2 || bits > 8) args.Fail("num_bits", "must be 2 to 8, not " + std::to_string(bits));
  return {static_cast<int>(bits), args.Bool("symmetric", true), ParseGroupSize(args)};
}

// Refuses the top-level features that change what a weight means.
std::string CheckTopLevel(const Field& top) {
  std::string format = top.Text("format", "dense");
  if (format != kPackQuantized && format != "mixed-precision") {
    top.Fail("format", "'" + format + "' cannot be read, only pack-quantized");
  }
  const std::string status = top.Text("quantization_status", "compressed");
  if (status != "compressed") {
    top.Fail("quantization_status", "'" + status +
                                        "': the checkpoint is not compressed; finish it "
                                        "with the tool that made it");
  }
  top.MustBeEmpty("kv_cache_scheme", "a quantized KV cache");
  top.MustBeEmpty("sparsity_config", "sparsity");
  top.MustBeEmpty("moe_sparsity_config", "expert sparsity");
  top.MustBeEmpty("transform_config", "a transform of the weights");
  return format;
}

json ArgsToJson(const QuantScheme& scheme) {
  const bool channel = scheme.group_size == QuantScheme::kPerChannel;
  // Only keys that every release of the library knows: an unknown one is an error to it.
  return {{"num_bits", scheme.bits},
          {"type", "int"},
          {"symmetric", scheme.symmetric},
          {"group_size", channel ? json(nullptr) : json(scheme.group_size)},
          {"strategy", channel ? "channel" : "group"},
          {"dynamic", false}};
}

// Schemes that differ only in the type of their scales share a group.
bool SameGroup(const QuantScheme& a, const QuantScheme& b) {
  return a.bits == b.bits && a.symmetric == b.symmetric && a.group_size == b.group_size;
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
  const Field top(config, "quantization_config", where);
  const std::string top_format = CheckTopLevel(top);
  CompressedTensorsConfig result;
  result.where_ = where;
  if (const json* ignore = top.Get("ignore")) {
    result.ignore_ = ParseTargets(*ignore, where + ": quantization_config.ignore");
  }
  const json* groups = top.Get("config_groups");
  if (groups == nullptr || groups->empty()) top.Fail("config_groups", "is missing or empty");
  if (!groups->is_object()) top.Fail("config_groups", "must be an object");
  for (const auto& [name, value] : groups->items()) {
    const Field group(value, top.path() + ".config_groups." + name, where);
    group.AllowOnly({"targets", "weights", "input_activations", "output_activations", "format"});
    const std::string format = group.Text("format", top_format);
    if (format != kPackQuantized) group.Fail("format", "'" + format + "' cannot be read");
    group.MustBeEmpty("input_activations", "quantized activations");
    group.MustBeEmpty("output_activations", "quantized activations");
    const json* weights = group.Get("weights");
    if (weights == nullptr) group.Fail("weights", "is missing");
    const json* targets = group.Get("targets");
    if (targets == nullptr) group.Fail("targets", "is missing");
    result.groups_.push_back({name,
                              ParseTargets(*targets, where + ": " + group.path() + ".targets"),
                              ParseWeightArgs(Field(*weights, group.path() + ".weights", where))});
    for (const Target& target : result.groups_.back().targets) {
      // A class has no dot; a module below the root has.
      const bool exact = !target.pattern && target.text.find('.') != std::string::npos;
      if (exact) result.exact_targets_.push_back(target.text);
    }
  }
  return result;
}

std::optional<PackedWeightArgs> CompressedTensorsConfig::ArgsFor(const std::string& module) const {
  for (const Target& target : ignore_) {
    if (target.Match(module) > 0) return std::nullopt;
  }
  int best = 0;
  const Group* chosen = nullptr;
  for (const Group& group : groups_) {
    for (const Target& target : group.targets) {
      const int rank = target.Match(module);
      if (rank > 0 && rank == best && chosen->args != group.args) {
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
  return chosen == nullptr ? std::nullopt : std::optional(chosen->args);
}

json MakeCompressedTensorsConfig(std::span<const QuantizedModule> modules,
                                 std::span<const std::string> dense) {
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
  json config_groups = json::object();
  for (size_t i = 0; i < groups.size(); ++i) {
    const auto& [scheme, names] = groups[i];
    const json targets = groups.size() == 1 ? json::array({"Linear"}) : json(names);
    config_groups["group_" + std::to_string(i)] = {{"targets", targets},
                                                   {"weights", ArgsToJson(scheme)},
                                                   {"input_activations", nullptr},
                                                   {"output_activations", nullptr}};
  }
  return {{"quant_method", "compressed-tensors"},
          {"version", kLibraryVersion},
          {"format", kPackQuantized},
          {"quantization_status", "compressed"},
          {"global_compression_ratio", nullptr},
          {"kv_cache_scheme", nullptr},
          {"ignore", ignore},
          {"config_groups", config_groups}};
}

}  // namespace quantmill
