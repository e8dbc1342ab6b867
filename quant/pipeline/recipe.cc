#include "quant/pipeline/recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/kv_text.h"
#include "kernels/core/error.h"
#include "quant/pipeline/schemes.h"
#include "quant/report/spelling.h"

namespace quantmill {
namespace {

using NamedMethod = std::pair<const char*, MethodChoice>;

// Long forms come first, so that NameOf finds them.
constexpr NamedMethod kMethods[] = {
    {"gptq", {Transform::kNone, Method::kGptq}},
    {"rtn", {Transform::kNone, Method::kRtn}},
    {"awq+gptq", {Transform::kAwq, Method::kGptq}},
    {"awq+rtn", {Transform::kAwq, Method::kRtn}},
    {"smoothquant+gptq", {Transform::kSmoothQuant, Method::kGptq}},
    {"smoothquant+rtn", {Transform::kSmoothQuant, Method::kRtn}},
    {"awq", {Transform::kAwq, Method::kRtn}},
    {"smoothquant", {Transform::kSmoothQuant, Method::kGptq}},
};

nlohmann::json RulesJson(const Recipe& recipe) {
  nlohmann::json rules = nlohmann::json::array();
  for (const Rule& rule : recipe.rules) {
    rules.push_back(
        {{"match", rule.pattern}, {"scheme", rule.scheme ? SchemeText(*rule.scheme) : "dense"}});
  }
  return rules;
}

}  // namespace

std::string NameOf(Method method) { return method == Method::kRtn ? "rtn" : "gptq"; }
std::string NameOf(Effort effort) { return effort == Effort::kBest ? "best" : "fast"; }

std::vector<std::string> MethodNames() {
  std::vector<std::string> names;
  for (const auto& [name, choice] : kMethods) names.emplace_back(name);
  return names;
}

MethodChoice MethodNamed(const std::string& name, const std::string& where) {
  for (const auto& [known, choice] : kMethods) {
    if (name == known) return choice;
  }
  const std::vector<std::string> names = MethodNames();
  throw Error(ErrorCode::kUsage, where,
              fmt::format("'{}' is not one of: {}{}", name, fmt::join(names, ", "),
                          Suggestion(name, names)));
}

std::string NameOf(const MethodChoice& choice) {
  for (const auto& [name, known] : kMethods) {
    if (known == choice) return name;
  }
  return "?";
}

MethodChoice DefaultMethod(const QuantScheme& scheme) {
  if (scheme.code_type == CodeType::kFp8) return {Transform::kNone, Method::kRtn};
  if (scheme.input.type == InputScheme::Type::kInt8) {
    return {Transform::kSmoothQuant, Method::kGptq};
  }
  return {Transform::kNone, Method::kGptq};
}

bool Recipe::calibrated() const {
  return method == Method::kGptq || transform != Transform::kNone || !calibration.text.empty() ||
         kv.type != KvScheme::Type::kNone || scheme.input.has_stored_scale() ||
         std::any_of(rules.begin(), rules.end(), [](const Rule& rule) {
           return rule.scheme && rule.scheme->input.has_stored_scale();
         });
}

nlohmann::json RecipeJson(const Recipe& recipe) {
  nlohmann::json json = {
      {"method", NameOf(recipe.method_choice())},
      {"scheme", SchemeText(recipe.scheme)},
      {"bits", recipe.scheme.bits},
      {"symmetric", recipe.scheme.symmetric},
      {"group_size", recipe.scheme.group_size},
      {"scale_dtype", NameOf(recipe.scheme.scale_dtype)},
      {"format", recipe.format},
      {"quantize_head", recipe.quantize_head},
      {"max_fallbacks", recipe.max_fallbacks},
  };
  if (recipe.gguf) {
    for (const char* key : {"scheme", "bits", "symmetric", "group_size", "scale_dtype"}) {
      json.erase(key);
    }
    json["gguf_type"] = recipe.gguf->type;
    if (!recipe.gguf->embedding_type.empty()) json["embedding_type"] = recipe.gguf->embedding_type;
    if (!recipe.gguf->pre.empty()) json["gguf_pre"] = recipe.gguf->pre;
  }
  if (recipe.target.stack != ServingTarget::Stack::kNone) {
    json["target"] = NameOf(recipe.target.stack);
    json["tensor_parallel"] = recipe.target.tensor_parallel;
  }
  if (recipe.rotate) json["rotate"] = true;
  if (recipe.kv.type != KvScheme::Type::kNone) {
    json["kv_scheme"] = KvText(recipe.kv);
  }
  if (!recipe.rules.empty()) json["rules"] = RulesJson(recipe);
  if (!recipe.calibrated()) return json;
  json["effort"] = NameOf(recipe.effort);
  if (recipe.smoothing_alpha) json["smoothing_alpha"] = *recipe.smoothing_alpha;
  json["act_order"] = recipe.act_order;
  json["damp_percent"] = recipe.damp_percent;
  json["compute"] = NameOf(recipe.compute.value_or(Compute::kF32));
  json["calibration"] = {{"samples", recipe.calibration.samples},
                         {"sequence_length", recipe.calibration.sequence_length}};
  if (recipe.calibration.held_out > 0)
    json["calibration"]["held_out"] = recipe.calibration.held_out;
  if (recipe.calibration.seed) json["calibration"]["seed"] = *recipe.calibration.seed;
  return json;
}

}  // namespace quantmill
