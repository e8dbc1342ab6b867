// What `quantize` was asked to do, resolved: the same for flags and recipe files.
#ifndef QUANTMILL_QUANT_PIPELINE_RECIPE_H_
#define QUANTMILL_QUANT_PIPELINE_RECIPE_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/core/scheme.h"
#include "kernels/ops.h"
#include "quant/model/serving_target.h"
#include "quant/pipeline/rules.h"
#include "quant/report/results.h"

namespace quantmill {

enum class Method : uint8_t { kRtn, kGptq };
// What is folded into the op before a layer, ahead of the method.
enum class Transform : uint8_t { kNone, kAwq, kSmoothQuant };
// kBest: scale search, asymmetric target, refinement of codes. kFast: the published method on one
// stream of activations.
enum class Effort : uint8_t { kBest, kFast };

std::string NameOf(Method method);  // "rtn", "gptq"
std::string NameOf(Effort effort);  // "best", "fast"

// The two halves of `--method`.
struct MethodChoice {
  Transform transform = Transform::kNone;
  Method method = Method::kGptq;
  friend bool operator==(const MethodChoice&, const MethodChoice&) = default;
};
// As --method lists them: "rtn", "gptq", "awq" (awq+rtn), "awq+gptq", "smoothquant"
// (smoothquant+gptq), "smoothquant+rtn", ...
std::vector<std::string> MethodNames();
// Throws Error(kUsage, where) listing the names.
MethodChoice MethodNamed(const std::string& name, const std::string& where);
std::string NameOf(const MethodChoice& choice);  // the long form: "awq+rtn"
// What is used where --method is absent: SmoothQuant with GPTQ for int8 inputs, rounding for FP8
// (needs no data), GPTQ for everything else.
MethodChoice DefaultMethod(const QuantScheme& scheme);

struct CalibrationRecipe {
  std::string text;  // file; empty: the bundled text, which is an event
  int64_t samples = 128;
  int64_t sequence_length = 512;
  std::optional<uint64_t> seed;  // draws windows; otherwise the first ones
  // Windows at the end of the text that are left out, because a budget was measured on them.
  int64_t held_out = 0;
};

// What a mixed-precision run must keep (budget.h).
struct Budget {
  enum class Kind : uint8_t {
    kBits,       // average bits a weight over quantized layers, scales and zero points counted
    kKl,         // mean KL from the original, nats a token, on calibration text held out
    kPerplexity  // growth of the perplexity there, as a share: 0.01
  };
  Kind kind = Kind::kBits;
  double limit = 0;
  friend bool operator==(const Budget&, const Budget&) = default;
};

// One GGUF file instead of a folder.
struct GgufChoice {
  std::string type = "q4_k_m";  // of linear layers, as gguf_types.h names them
  std::string embedding_type;   // of embedding and head; "": as gguf_types.h says
  std::string pre;              // tokenizer.ggml.pre; "": found from tokenizer.json
};

struct Recipe {
  Method method = Method::kGptq;
  Transform transform = Transform::kNone;
  Effort effort = Effort::kBest;
  // Of layers that no rule names. The scale types of this and of the rules are set by the plan
  // (ScaleTypeFor).
  QuantScheme scheme;
  std::vector<Rule> rules;
  KvScheme kv;  // of an FP8 cache, written with calibrated scales; kNone: none
  // Bits are chosen for each layer that no rule names; `scheme` gives groups and zero points. The
  // choice becomes rules before anything is quantized.
  std::optional<Budget> budget;
  // What that choice came to, once it was made: told beside the result, which does not depend on
  // it.
  std::optional<BudgetOutcome> chosen_for;
  bool rotate = false;         // the model is rotated first (quant/model/rotation.h)
  bool quantize_head = false;  // lm_head too, in kHeadScheme unless a rule says otherwise
  std::string format = "compressed-tensors";
  // Set where `format` is "gguf": says how layers are stored. `scheme` says nothing then, and rules
  // only which layers stay dense.
  std::optional<GgufChoice> gguf;
  ServingTarget target;  // what the artifact is for: refused by the plan where it cannot load it
  CalibrationRecipe calibration;
  // The exponent of SmoothQuant for every layer; empty: searched, layer by layer.
  std::optional<double> smoothing_alpha;
  bool act_order = true;           // order of the solve only: groups stay in place, no g_idx
  double damp_percent = 0.01;      // of the mean diagonal of the Gram matrix
  std::optional<Compute> compute;  // of the calibration forward; empty: bf16 where it is fast
  int64_t max_host_mem = 0;        // bytes; 0: no limit
  int64_t max_gpu_mem = 0;         // bytes; 0: most of what the device has
  int64_t max_fallbacks = 0;       // more fallback events than this: exit code 1

  MethodChoice method_choice() const { return {transform, method}; }
  // Whether calibration text is run through the model: for a method or scheme that needs its
  // statistics, or for rounding when a text was given (scales are then chosen under them).
  bool calibrated() const;
};

// 8 bits per output channel: what a head is worth (see docs/methods.md).
inline constexpr const char* kHeadScheme = "w8a16";

// As written beside the weights (quantmill.json), every field spelled out.
nlohmann::json RecipeJson(const Recipe& recipe);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_RECIPE_H_
