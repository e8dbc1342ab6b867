// What `quantize` was asked to do, resolved: the same for flags and recipe files.
#ifndef QUANTMILL_QUANT_PIPELINE_RECIPE_H_
#define QUANTMILL_QUANT_PIPELINE_RECIPE_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "kernels/core/scheme.h"
#include "kernels/ops.h"

namespace quantmill {

enum class Method : uint8_t { kRtn, kGptq };
// What is folded into the op before a layer, ahead of the method.
enum class Transform : uint8_t { kNone, kAwq, kSmoothQuant };
// kBest: scale search, asymmetric target, refinement of codes. kFast: the published method on one
// stream of activations.
enum class Effort : uint8_t { kBest, kFast };
std::string NameOf(Method method);            // "rtn", "gptq"
Method MethodNamed(const std::string& name);  // Error(kUsage) listing the names

// "w4a16", "w8a16": bits of a weight-only integer scheme. Error(kUsage) listing the names.
int BitsOfScheme(const std::string& name);

struct CalibrationRecipe {
  std::string text;  // file; empty: the bundled text, which is an event
  int64_t samples = 128;
  int64_t sequence_length = 512;
  std::optional<uint64_t> seed;  // draws windows; otherwise the first ones
};

struct Recipe {
  Method method = Method::kGptq;
  Transform transform = Transform::kNone;
  Effort effort = Effort::kBest;
  QuantScheme scheme;  // scale_dtype is set from the checkpoint (its dense type) by ResolveRecipe
  std::string format = "compressed-tensors";
  CalibrationRecipe calibration;
  bool act_order = true;           // order of the solve only: groups stay in place, no g_idx
  double damp_percent = 0.01;      // of the mean diagonal of the Gram matrix
  std::optional<Compute> compute;  // of the calibration forward; empty: bf16 where it is fast
  int64_t max_host_mem = 0;        // bytes; 0: no limit
  int64_t max_fallbacks = 0;       // more fallback events than this: exit code 1
};

// As written beside the weights (quantmill.json), every field spelled out.
nlohmann::json RecipeJson(const Recipe& recipe);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_RECIPE_H_
