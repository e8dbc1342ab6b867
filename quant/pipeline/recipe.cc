#include "quant/pipeline/recipe.h"

#include <map>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

const std::map<std::string, int>& SchemeBits() {
  static const std::map<std::string, int> bits = {{"w4a16", 4}, {"w8a16", 8}};
  return bits;
}

}  // namespace

std::string NameOf(Method method) { return method == Method::kRtn ? "rtn" : "gptq"; }

Method MethodNamed(const std::string& name) {
  if (name == "rtn") return Method::kRtn;
  if (name == "gptq") return Method::kGptq;
  throw Error(ErrorCode::kUsage, "--method", "'" + name + "' is not one of: gptq, rtn");
}

int BitsOfScheme(const std::string& name) {
  const auto it = SchemeBits().find(name);
  if (it != SchemeBits().end()) return it->second;
  std::string known;
  for (const auto& [scheme, bits] : SchemeBits()) known += (known.empty() ? "" : ", ") + scheme;
  throw Error(ErrorCode::kUsage, "--scheme", "'" + name + "' is not one of: " + known);
}

nlohmann::json RecipeJson(const Recipe& recipe) {
  nlohmann::json json = {
      {"method", NameOf(recipe.method)},
      {"bits", recipe.scheme.bits},
      {"symmetric", recipe.scheme.symmetric},
      {"group_size", recipe.scheme.group_size},
      {"scale_dtype", NameOf(recipe.scheme.scale_dtype)},
      {"format", recipe.format},
      {"max_fallbacks", recipe.max_fallbacks},
  };
  if (recipe.method == Method::kRtn) return json;
  json["act_order"] = recipe.act_order;
  json["damp_percent"] = recipe.damp_percent;
  json["compute"] = recipe.compute == Compute::kBF16 ? "bf16" : "f32";
  json["calibration"] = {{"samples", recipe.calibration.samples},
                         {"sequence_length", recipe.calibration.sequence_length}};
  if (recipe.calibration.seed) json["calibration"]["seed"] = *recipe.calibration.seed;
  return json;
}

}  // namespace quantmill
