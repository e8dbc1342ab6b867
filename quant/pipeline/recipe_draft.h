// A recipe as it was asked for, before defaults: what presets, files and flags said, and where.
#ifndef QUANTMILL_QUANT_PIPELINE_RECIPE_DRAFT_H_
#define QUANTMILL_QUANT_PIPELINE_RECIPE_DRAFT_H_

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "quant/pipeline/recipe.h"

namespace quantmill {

// A value and where it was said ("--scheme", "mine.yaml:3: scheme"), for errors.
template <typename T>
struct Said {
  T value;
  std::string where;
};
template <typename T>
using Maybe = std::optional<Said<T>>;

struct RuleDraft {
  std::string pattern;
  std::string scheme;  // ParseScheme's grammar, or "dense"
  std::string where;
};

// Fields are the keys of a recipe file (docs/methods.md, "Recipes") and the flags of the same
// names.
struct RecipeDraft {
  Maybe<std::string> scheme;
  Maybe<std::string> group_size;
  Maybe<bool> asymmetric;
  Maybe<std::string> method;
  Maybe<std::string> effort;
  Maybe<double> smoothing_alpha;
  Maybe<std::string> kv_scheme;
  Maybe<bool> rotate;
  std::vector<RuleDraft> rules;
  Maybe<std::string> budget;
  Maybe<bool> quantize_head;
  Maybe<std::string> format;
  Maybe<std::string> gguf_type;
  Maybe<std::string> embedding_type;
  Maybe<std::string> gguf_pre;
  Maybe<std::string> target;
  Maybe<int64_t> tensor_parallel;
  Maybe<bool> act_order;
  Maybe<double> damp_percent;
  Maybe<std::string> calib;
  Maybe<int64_t> samples;
  Maybe<int64_t> sequence_length;
  Maybe<int64_t> calib_seed;
  Maybe<int64_t> held_out;  // no flag: a budget sets it
  Maybe<std::string> compute;
  Maybe<std::string> max_host_mem;
  Maybe<std::string> max_gpu_mem;
  Maybe<int64_t> max_fallbacks;
};

struct IntegerRange {
  int64_t low;
  int64_t high;
};
inline constexpr IntegerRange kSamplesRange{1, 1'000'000};
inline constexpr IntegerRange kSequenceLengthRange{2, 1'000'000};
inline constexpr IntegerRange kSeedRange{0, std::numeric_limits<int64_t>::max()};
inline constexpr IntegerRange kHeldOutRange{0, 1'000'000};
inline constexpr IntegerRange kTensorParallelRange{1, 1024};
inline constexpr IntegerRange kFallbacksRange{0, 1'000'000};

// What `later` says replaces what `draft` said; its rules come after. A later scheme takes the
// earlier one's group size and symmetry with it: they were chosen for that scheme.
void Override(RecipeDraft& draft, const RecipeDraft& later);

// Defaults filled in. A rule's scheme of less than 8 bits that says nothing of groups or zero
// points takes the recipe's own. Throws Error(kUsage) naming the place of what cannot be.
Recipe ResolveRecipe(const RecipeDraft& draft);

// "REGEX=SCHEME" of --rule. Throws Error(kUsage, "--rule").
RuleDraft ParseRule(const std::string& text);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_RECIPE_DRAFT_H_
