// What a run will do and need, known before it starts.
#ifndef QUANTMILL_QUANT_PIPELINE_PLAN_H_
#define QUANTMILL_QUANT_PIPELINE_PLAN_H_

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "formats/artifact.h"
#include "quant/calib/calibration_stream.h"
#include "quant/model/gguf_layout.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/gguf_types.h"
#include "quant/pipeline/recipe.h"
#include "quant/report/results.h"

namespace quantmill {

// The linear layers that will be quantized, each with its own scheme.
class PlannedModules {
 public:
  void Add(QuantizedModule module);
  // In order of blocks and sites; lm_head, if it is quantized, last.
  const std::vector<QuantizedModule>& all() const { return modules_; }
  // Null for a layer that stays dense.
  const QuantizedModule* Find(const std::string& name) const;

 private:
  std::vector<QuantizedModule> modules_;
  std::unordered_map<std::string, size_t> index_;
};

// The file that a GGUF recipe makes. Embedding and dense layers are among its matrices too.
struct GgufPlan {
  GgufLayout layout;
  GgufTypes types;  // of layout.matrices
};

struct QuantizePlan {
  Recipe recipe;                   // resolved: scale types, compute
  PlannedModules modules;          // what is quantized, and how
  std::vector<std::string> dense;  // linear modules left as they are, in the same order
  std::optional<GgufPlan> gguf;    // where recipe.gguf
  StreamOptions stream;            // what is kept, where, and what is recomputed, to fit the budget
  // Weights come while the work before their use goes on, which takes memory for another layer.
  bool loads_ahead = false;
  MemoryPlan memory;
  int64_t backend_budget = 0;  // bytes of the backend's memory that the run may take; 0: no limit

  // The module of a linear layer, or null where it stays dense.
  const QuantizedModule* Find(const std::string& name) const { return modules.Find(name); }
  // The type of its blocks in a GGUF file; nullopt in other formats. REQUIRES: Find(name).
  std::optional<GgmlType> BlocksOf(const std::string& name) const;
};

// Which layers are quantized and how: the recipe's scheme, its rules, its head. The memory is not
// planned. Throws
//   Error(kBadInput)     the source is quantized already;
//   Error(kUsage)        groups that do not divide a layer's width (all such layers are listed,
//                        with the group sizes that fit); a rule that matches nothing; layers that
//                        servers fuse (q, k, v; gate, up) in different schemes; a tied head; a
//                        scheme that the format cannot hold; a model that cannot be rotated;
//                        nothing left to quantize.
// and for GGUF what DescribeGguf throws.
QuantizePlan PlanModules(const ModelSource& source, const Recipe& recipe);

// PlanModules, and what the run needs on `backend`. Throws besides
//   Error(kEnvironment)  --max-host-mem or --max-gpu-mem (or 90 % of the device's memory) below the
//                        least that would do, which is named; a compute type that the backend does
//                        not have;
//   Error(kUsage)        --max-gpu-mem for a backend that has the host's memory; a budget of fewer
//                        bits than the smallest schemes take.
QuantizePlan PlanQuantization(const ModelSource& source, const Recipe& recipe,
                              const BackendInfo& backend);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_PLAN_H_
