// The flags that say what to make: the same for `quantize` and `plan`.
#ifndef QUANTMILL_TOOLS_RECIPE_FLAGS_H_
#define QUANTMILL_TOOLS_RECIPE_FLAGS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "quant/pipeline/recipe.h"
#include "tools/console.h"
#include "tools/flag_set.h"

namespace quantmill {

class RecipeFlags {
 public:
  // Flags become fields of this object, which must outlive `command`.
  void Register(const FlagSet& command);

  // --recipe, overridden by the other flags, with defaults filled in. Throws as LoadRecipe and
  // ResolveRecipe do.
  Recipe Resolve() const;

  // Says which flags the resolved recipe has no use for.
  void NoteUnused(const Recipe& recipe, const Console& console) const;

 private:
  void RegisterWhat(const FlagSet& command);
  void RegisterHow(const FlagSet& command);
  void RegisterCalibration(const FlagSet& command);

  std::string recipe_;
  std::optional<std::string> scheme_;
  std::optional<std::string> group_size_;
  bool asymmetric_ = false;
  std::vector<std::string> rules_;
  std::vector<std::string> keep_dense_;
  std::optional<std::string> budget_;
  bool quantize_head_ = false;
  bool rotate_ = false;
  std::optional<std::string> method_;
  std::optional<std::string> effort_;
  std::optional<double> smoothing_alpha_;
  std::optional<std::string> kv_scheme_;
  std::optional<std::string> format_;
  std::optional<std::string> gguf_type_;
  std::optional<std::string> embedding_type_;
  std::optional<std::string> gguf_pre_;
  std::optional<std::string> target_;
  std::optional<int64_t> tensor_parallel_;
  bool no_act_order_ = false;
  std::optional<double> damp_percent_;
  std::optional<std::string> calib_;
  std::optional<int64_t> samples_;
  std::optional<int64_t> sequence_length_;
  std::optional<int64_t> calib_seed_;
  std::optional<std::string> compute_;
  std::optional<std::string> max_host_mem_;
  std::optional<std::string> max_gpu_mem_;
  std::optional<int64_t> max_fallbacks_;
};

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_RECIPE_FLAGS_H_
