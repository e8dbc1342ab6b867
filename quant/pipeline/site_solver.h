// The method of a recipe, applied to the layers of one site: grid, target, codes.
#ifndef QUANTMILL_QUANT_PIPELINE_SITE_SOLVER_H_
#define QUANTMILL_QUANT_PIPELINE_SITE_SOLVER_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "formats/artifact.h"
#include "formats/gguf/block_types.h"
#include "quant/calib/site_statistics.h"
#include "quant/pipeline/recipe.h"
#include "quant/solve/asymmetric_target.h"
#include "quant/solve/gptq.h"
#include "quant/transform/static_inputs.h"

namespace quantmill {

struct LayerSolution {
  SolveResult solved;
  // What rounding to nearest on the MinMax grid would have left: relative_error's "before".
  double rounded_error = 0;
  // Of the asymmetric target; 0 where it was not used.
  double target_strength = 0;
  // Where a type of GGUF blocks was asked for: the rows of the file, [out] of RowBytes(type, in).
  // They are the result; solved.linear holds their codes.
  std::vector<std::byte> rows;
};

// What `effort` best does for a scheme. Layers with rounded inputs are solved for their weights
// alone: on W8A8 the search and the target made the model worse (docs/methods.md).
struct SolvePlan {
  bool search_scales = false;
  bool asymmetric_target = false;
  int refine_sweeps = 0;
};
SolvePlan PlanSolve(const Recipe& recipe, const QuantScheme& scheme);

// Whether some layer wants a full-precision stream beside the quantized one.
bool NeedsFullStream(const Recipe& recipe, const std::vector<QuantizedModule>& modules);

// Borrows `recipe`. Solve may be called once for each layer of the site.
class SiteSolver {
 public:
  // statistics: consumed. modules: the site's layers that are quantized, at least one.
  // where: names the site in errors. global_scale: of NVFP4 layers, which share one.
  SiteSolver(Backend& backend, Exec& exec, const Recipe& recipe, SiteStatistics statistics,
             const std::vector<const QuantizedModule*>& modules, const std::string& where,
             std::optional<float> global_scale);

  // weight: [out, in] F32, backend memory. blocks: the layer's type in a GGUF file, whose
  // SchemeOfBlocks `scheme` then is.
  LayerSolution Solve(ConstMatrix weight, const QuantScheme& scheme,
                      std::optional<GgmlType> blocks = std::nullopt);

 private:
  Grid ChooseGrid(ConstMatrix target, const QuantScheme& scheme, bool search);
  LayerSolution SolveOn(ConstMatrix weight, ConstMatrix target, const QuantScheme& scheme,
                        const Grid& grid);
  const ErrorWeights& error_weights() const {
    return inputs_ ? inputs_->error_weights() : factor_->error_weights();
  }

  Backend& backend_;
  Exec& exec_;
  const Recipe& recipe_;
  ValueRange input_range_;  // of static inputs
  std::optional<float> global_scale_;
  std::map<int64_t, Tensor> blocks_;  // of the Gram matrix, by the group size of a scheme
  std::vector<float> importance_;     // the Gram matrix's diagonal, for GGUF's encoders
  CrossStatistics cross_;
  // One of the two: rounding needs no factorization.
  std::optional<InputStatistics> inputs_;
  std::optional<GptqFactor> factor_;
};

// Each weight to the nearest code of the smallest grid that covers its group (or of the blocks that
// a GGUF encoder finds), without calibration. Arguments as in SiteSolver::Solve.
LayerSolution RoundLayer(Backend& backend, Exec& exec, ConstMatrix weight,
                         const QuantScheme& scheme, std::optional<GgmlType> blocks);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_SITE_SOLVER_H_
