#include "quant/pipeline/recipe_draft.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "formats/artifact.h"
#include "kernels/core/error.h"
#include "quant/pipeline/budget.h"
#include "quant/pipeline/gguf_types.h"
#include "quant/pipeline/schemes.h"
#include "quant/report/spelling.h"
#include "quant/report/units.h"

namespace quantmill {
namespace {

// One of a few names.
template <typename T>
T Named(const Said<std::string>& said, std::initializer_list<std::pair<const char*, T>> values) {
  std::vector<std::string> names;
  for (const auto& [name, value] : values) {
    if (said.value == name) return value;
    names.emplace_back(name);
  }
  throw Error(ErrorCode::kUsage, said.where,
              fmt::format("'{}' is not one of: {}{}", said.value, fmt::join(names, ", "),
                          Suggestion(said.value, names)));
}

void SetInteger(const Maybe<int64_t>& said, const IntegerRange& range, int64_t& value) {
  if (!said) return;
  if (said->value < range.low || said->value > range.high) {
    throw Error(
        ErrorCode::kUsage, said->where,
        fmt::format("{} is not a whole number from {} to {}", said->value, range.low, range.high));
  }
  value = said->value;
}

QuantScheme BaseScheme(const RecipeDraft& draft) {
  const std::string where = draft.scheme ? draft.scheme->where : "--scheme";
  QuantScheme scheme;
  SchemeChoice choice = ParseScheme(draft.scheme ? draft.scheme->value : "w4a16", where);
  scheme = MakeScheme(choice, where);
  // One at a time, so that an error names the one that does not fit.
  if (draft.group_size) {
    choice.group_size = ParseGroupSize(draft.group_size->value, draft.group_size->where);
    scheme = MakeScheme(choice, draft.group_size->where);
  }
  if (draft.asymmetric) {
    choice.symmetric = !draft.asymmetric->value;
    scheme = MakeScheme(choice, draft.asymmetric->where);
  }
  return scheme;
}

Rule ResolveRule(const RuleDraft& draft, const QuantScheme& base) {
  Rule rule{draft.pattern, std::nullopt, draft.where};
  if (draft.scheme == "dense") return rule;
  SchemeChoice choice = ParseScheme(draft.scheme, draft.where);
  const NamedScheme& named = SchemeNamed(choice.name);
  const bool inherits = named.takes_groups && named.scheme.bits < 8 && base.bits < 8 &&
                        base.code_type == CodeType::kInt;
  if (inherits && !choice.group_size) choice.group_size = base.group_size;
  if (inherits && !choice.symmetric) choice.symmetric = base.symmetric;
  rule.scheme = MakeScheme(choice, draft.where);
  return rule;
}

void ResolveCalibration(const RecipeDraft& draft, CalibrationRecipe& calibration) {
  if (draft.calib) calibration.text = draft.calib->value;
  SetInteger(draft.samples, kSamplesRange, calibration.samples);
  SetInteger(draft.sequence_length, kSequenceLengthRange, calibration.sequence_length);
  SetInteger(draft.held_out, kHeldOutRange, calibration.held_out);
  if (draft.calib_seed) {
    int64_t seed = 0;
    SetInteger(draft.calib_seed, kSeedRange, seed);
    calibration.seed = static_cast<uint64_t>(seed);
  }
}

double ShareOf(const Said<double>& said) {
  if (said.value >= 0 && said.value <= 1) return said.value;
  throw Error(ErrorCode::kUsage, said.where,
              fmt::format("{} is not a number from 0 to 1", said.value));
}

void ResolveMethod(const RecipeDraft& draft, Recipe& recipe) {
  const MethodChoice method = draft.method ? MethodNamed(draft.method->value, draft.method->where)
                                           : DefaultMethod(recipe.scheme);
  recipe.transform = method.transform;
  recipe.method = method.method;
  if (draft.effort) {
    recipe.effort =
        Named<Effort>(*draft.effort, {{"best", Effort::kBest}, {"fast", Effort::kFast}});
  }
  if (draft.act_order) recipe.act_order = draft.act_order->value;
  if (draft.damp_percent) recipe.damp_percent = ShareOf(*draft.damp_percent);
  if (!draft.smoothing_alpha) return;
  recipe.smoothing_alpha = ShareOf(*draft.smoothing_alpha);
  if (recipe.transform != Transform::kSmoothQuant) {
    throw Error(ErrorCode::kUsage, draft.smoothing_alpha->where,
                "is for smoothquant; the method is " + NameOf(method));
  }
}

void ResolveKv(const RecipeDraft& draft, Recipe& recipe) {
  if (!draft.kv_scheme || draft.kv_scheme->value == "none") return;
  const std::string& name = draft.kv_scheme->value;
  if (name == "int8" || name == "int4") {
    throw Error(ErrorCode::kUsage, draft.kv_scheme->where,
                "'" + name + "' is a choice of the runtime (eval, generate: --kv-cache " + name +
                    "), which no file records; fp8 and fp8-head are written");
  }
  recipe.kv.type = KvScheme::Type::kFp8;
  recipe.kv.per_head = Named<bool>(*draft.kv_scheme, {{"fp8", false}, {"fp8-head", true}});
}

// How layers are stored is said by the type alone, and llama.cpp has no place for the rest.
void RefuseBesideGguf(const RecipeDraft& draft, const Recipe& recipe) {
  const auto refuse = [](const std::string& where) {
    throw Error(ErrorCode::kUsage, where, "is not for gguf, where --gguf-type says what is stored");
  };
  for (const auto* said : {&draft.scheme, &draft.group_size, &draft.budget, &draft.kv_scheme}) {
    if (*said) refuse((*said)->where);
  }
  for (const auto* said : {&draft.asymmetric, &draft.rotate, &draft.quantize_head}) {
    if (*said) refuse((*said)->where);
  }
  for (const Rule& rule : recipe.rules) {
    if (rule.scheme) refuse(rule.where);
  }
  if (recipe.transform != Transform::kNone) {
    throw Error(ErrorCode::kUsage, draft.method->where,
                "gguf takes gptq and rtn; scales of inputs are not folded for it");
  }
}

void ResolveGguf(const RecipeDraft& draft, Recipe& recipe) {
  if (!draft.format || draft.format->value != "gguf") {
    for (const auto* said : {&draft.gguf_type, &draft.embedding_type, &draft.gguf_pre}) {
      if (*said) throw Error(ErrorCode::kUsage, (*said)->where, "is only for --format gguf");
    }
    return;
  }
  recipe.format = "gguf";
  GgufChoice choice;
  const auto take = [](const Maybe<std::string>& said, const std::vector<std::string>& names,
                       std::string& value) {
    if (!said) return;
    value = said->value;
    if (std::find(names.begin(), names.end(), value) != names.end()) return;
    throw Error(ErrorCode::kUsage, said->where,
                fmt::format("'{}' is not one of: {}{}", value, fmt::join(names, ", "),
                            Suggestion(value, names)));
  };
  take(draft.gguf_type, SolvedGgufTypeNames(), choice.type);
  take(draft.embedding_type, GgufEmbeddingTypeNames(), choice.embedding_type);
  if (draft.gguf_pre) choice.pre = draft.gguf_pre->value;
  recipe.gguf = std::move(choice);
  RefuseBesideGguf(draft, recipe);
}

void ResolveTarget(const RecipeDraft& draft, ServingTarget& target) {
  if (draft.target) target.stack = StackNamed(draft.target->value, draft.target->where);
  SetInteger(draft.tensor_parallel, kTensorParallelRange, target.tensor_parallel);
  if (draft.tensor_parallel && !draft.target) {
    throw Error(ErrorCode::kUsage, draft.tensor_parallel->where, "needs --target");
  }
}

}  // namespace

void Override(RecipeDraft& draft, const RecipeDraft& later) {
  if (later.scheme) {
    draft.group_size.reset();
    draft.asymmetric.reset();
  }
  const auto take = [&](auto RecipeDraft::*field) {
    if (later.*field) draft.*field = later.*field;
  };
  take(&RecipeDraft::scheme);
  take(&RecipeDraft::group_size);
  take(&RecipeDraft::asymmetric);
  take(&RecipeDraft::method);
  take(&RecipeDraft::effort);
  take(&RecipeDraft::smoothing_alpha);
  take(&RecipeDraft::kv_scheme);
  take(&RecipeDraft::rotate);
  take(&RecipeDraft::budget);
  take(&RecipeDraft::quantize_head);
  take(&RecipeDraft::format);
  take(&RecipeDraft::gguf_type);
  take(&RecipeDraft::embedding_type);
  take(&RecipeDraft::gguf_pre);
  take(&RecipeDraft::target);
  take(&RecipeDraft::tensor_parallel);
  take(&RecipeDraft::act_order);
  take(&RecipeDraft::damp_percent);
  take(&RecipeDraft::calib);
  take(&RecipeDraft::samples);
  take(&RecipeDraft::sequence_length);
  take(&RecipeDraft::calib_seed);
  take(&RecipeDraft::held_out);
  take(&RecipeDraft::compute);
  take(&RecipeDraft::max_host_mem);
  take(&RecipeDraft::max_gpu_mem);
  take(&RecipeDraft::max_fallbacks);
  draft.rules.insert(draft.rules.end(), later.rules.begin(), later.rules.end());
}

Recipe ResolveRecipe(const RecipeDraft& draft) {
  Recipe recipe;
  recipe.scheme = BaseScheme(draft);
  for (const RuleDraft& rule : draft.rules) {
    recipe.rules.push_back(ResolveRule(rule, recipe.scheme));
  }
  ResolveMethod(draft, recipe);
  ResolveKv(draft, recipe);
  ResolveCalibration(draft, recipe.calibration);
  if (draft.budget) recipe.budget = ParseBudget(draft.budget->value, draft.budget->where);
  if (draft.rotate) recipe.rotate = draft.rotate->value;
  if (draft.quantize_head) recipe.quantize_head = draft.quantize_head->value;
  ResolveGguf(draft, recipe);
  if (draft.format && !recipe.gguf) recipe.format = FindArtifactFormat(draft.format->value).name();
  ResolveTarget(draft, recipe.target);
  if (draft.compute) {
    using Choice = std::optional<Compute>;
    recipe.compute = Named<Choice>(
        *draft.compute,
        {{"auto", Choice()}, {"f32", Choice(Compute::kF32)}, {"bf16", Choice(Compute::kBF16)}});
  }
  const auto take_bytes = [](const Maybe<std::string>& said, int64_t& bytes) {
    if (said) bytes = ParseByteSize(said->value, said->where);
  };
  take_bytes(draft.max_host_mem, recipe.max_host_mem);
  take_bytes(draft.max_gpu_mem, recipe.max_gpu_mem);
  SetInteger(draft.max_fallbacks, kFallbacksRange, recipe.max_fallbacks);
  return recipe;
}

RuleDraft ParseRule(const std::string& text) {
  // The last '=': a pattern may hold one (look-ahead), a scheme may not.
  const size_t at = text.rfind('=');
  if (at == std::string::npos || at == 0 || at + 1 == text.size()) {
    throw Error(ErrorCode::kUsage, "--rule",
                "'" + text +
                    "' is not REGEX=SCHEME, such as '.*down_proj=w8a16' or "
                    "'.*layers\\.0\\..*=dense'");
  }
  return {text.substr(0, at), text.substr(at + 1), "--rule " + text};
}

}  // namespace quantmill
