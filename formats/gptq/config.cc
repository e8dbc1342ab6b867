#include "formats/gptq/config.h"

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/config_field.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

using nlohmann::json;

constexpr std::array kBits = {2, 3, 4, 8};

// bits, group_size and sym of `field`, over those of `base`.
QuantScheme ReadScheme(const ConfigField& field, const QuantScheme& base) {
  QuantScheme scheme = base;
  if (const std::optional<int64_t> bits = field.Integer("bits")) {
    if (std::find(kBits.begin(), kBits.end(), *bits) == kBits.end()) {
      field.Fail("bits", "is " + std::to_string(*bits) + "; 2, 3, 4 and 8 can be read");
    }
    scheme.bits = static_cast<int>(*bits);
  }
  if (const std::optional<int64_t> group = field.Integer("group_size")) {
    if (*group != QuantScheme::kPerChannel && *group < 1) {
      field.Fail("group_size", "is " + std::to_string(*group) + "; -1 or above 0 is possible");
    }
    scheme.group_size = *group;
  }
  scheme.symmetric = field.Bool("sym", base.symmetric);
  return scheme;
}

void CheckKnownLayout(const ConfigField& top) {
  if (top.Bool("is_marlin_format", false)) {
    top.Fail("is_marlin_format", "marlin files are of one GPU's layout and cannot be read");
  }
  if (const std::string type = top.Text("pack_dtype", "int32"); type != "int32") {
    top.Fail("pack_dtype", "is '" + type + "'; int32 can be read");
  }
}

bool IsVersion2(const ConfigField& top) {
  const std::string format = top.Text("checkpoint_format", top.Text("format", "gptq"));
  if (format == "gptq" || format == "gptq_v2") return format == "gptq_v2";
  top.Fail("checkpoint_format", "is '" + format + "'; gptq and gptq_v2 can be read");
}

json SchemeJson(const QuantScheme& scheme) {
  return {{"bits", scheme.bits}, {"group_size", scheme.group_size}, {"sym", scheme.symmetric}};
}

// A module's name as a pattern that nothing else matches.
std::string Exactly(const std::string& module) {
  std::string pattern;
  for (const char c : module) {
    if (c == '.') pattern += '\\';
    pattern += c;
  }
  return pattern + "$";
}

}  // namespace

GptqConfig GptqConfig::Parse(const json& config, const std::string& where) {
  const ConfigField top(config, "quantization_config", where);
  CheckKnownLayout(top);
  if (!top.Integer("bits")) top.Fail("bits", "is missing");
  GptqConfig result;
  result.where_ = where;
  result.version_2_ = IsVersion2(top);
  result.scheme_ = ReadScheme(top, {});
  const json* dynamic = top.Get("dynamic");
  if (dynamic == nullptr) return result;
  if (!dynamic->is_object()) top.Fail("dynamic", "must be an object");
  for (const auto& [key, value] : dynamic->items()) {
    const ConfigField entry(value, top.path() + ".dynamic." + key, where);
    const bool dense = key.starts_with("-:");
    const std::string pattern = dense || key.starts_with("+:") ? key.substr(2) : key;
    Override override{key, Regex::FromPcre("\\A(?:" + pattern + ")", where + ": " + entry.path()),
                      std::nullopt};
    if (!dense) override.scheme = ReadScheme(entry, result.scheme_);
    result.overrides_.push_back(std::move(override));
  }
  return result;
}

// The first match counts, in the order of the file, which JSON readers do not keep: where all
// matches agree, the order is no matter.
std::optional<QuantScheme> GptqConfig::SchemeFor(const std::string& module) const {
  const Override* found = nullptr;
  for (const Override& override : overrides_) {
    bool matches = false;
    override.pattern.ForEachMatch(module, [&](size_t, size_t) { matches = true; });
    if (!matches) continue;
    if (found != nullptr && found->scheme != override.scheme) {
      throw Error(ErrorCode::kBadInput, where_ + ": quantization_config.dynamic",
                  "'" + found->key + "' and '" + override.key + "' both match module '" + module +
                      "' and disagree");
    }
    found = &override;
  }
  return found != nullptr ? found->scheme : scheme_;
}

json MakeGptqConfig(std::span<const QuantizedModule> modules, std::span<const std::string> dense,
                    bool version_2) {
  Check(!modules.empty(), "a quantization_config needs a quantized module");
  std::vector<std::pair<QuantScheme, int>> counts;
  for (const QuantizedModule& module : modules) {
    const auto same = std::find_if(counts.begin(), counts.end(),
                                   [&](const auto& c) { return c.first == module.scheme; });
    if (same == counts.end()) {
      counts.emplace_back(module.scheme, 1);
    } else {
      ++same->second;
    }
  }
  const QuantScheme most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
        return a.second < b.second;
      })->first;

  const char* format = version_2 ? "gptq_v2" : "gptq";
  json config = SchemeJson(most);
  config.update({{"quant_method", "gptq"},
                 {"checkpoint_format", format},
                 {"format", format},  // as GPTQModel spells it
                 {"pack_dtype", "int32"},
                 {"desc_act", false},
                 {"static_groups", false},
                 {"true_sequential", true},
                 {"lm_head", false},
                 {"meta", {{"quantizer", {"quantmill:" QUANTMILL_VERSION}}}}});
  json dynamic = json::object();
  for (const std::string& name : dense) {
    if (name != "lm_head") dynamic["-:" + Exactly(name)] = json::object();
  }
  for (const QuantizedModule& module : modules) {
    if (module.name == "lm_head") config["lm_head"] = true;
    if (module.scheme == most) continue;
    dynamic["+:" + Exactly(module.name)] = SchemeJson(module.scheme);
  }
  if (!dynamic.empty()) config["dynamic"] = dynamic;
  return config;
}

}  // namespace quantmill
