// What each group of layers costs the model at each number of bits, from one pass over dense
// blocks: the Gram-weighted error that the recipe's solver leaves, scaled by measured divergences.
#ifndef QUANTMILL_QUANT_PIPELINE_SENSITIVITY_H_
#define QUANTMILL_QUANT_PIPELINE_SENSITIVITY_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "quant/pipeline/plan.h"

namespace quantmill {

// Layers that must share a scheme because servers fuse them, or a single one.
struct LayerGroup {
  std::string name;  // "model.layers.0.self_attn.(q_proj|k_proj|v_proj)", also as a pattern
  std::vector<std::string> layers;
  size_t family = 0;  // of one site and depth (a block; some, of many): they share a scale
  int64_t weights = 0;
  // Of each candidate: bits with scales and zero points; mean over the layers of
  // tr(dW H dW^T) / tr(W H W^T) that the recipe's solver leaves.
  std::vector<int64_t> bits;
  std::vector<double> errors;
};

struct Sensitivity {
  std::vector<QuantScheme> candidates;  // by growing bits
  std::vector<LayerGroup> groups;       // in order of blocks and sites
  // Of each family: nats of divergence for an error of 1, measured.
  std::vector<double> family_scales;
  int64_t fixed_weights = 0;  // of layers that a rule names: quantized as it says
  int64_t fixed_bits = 0;

  // Predicted KL, nats a token.
  double Cost(const LayerGroup& group, size_t candidate) const {
    return family_scales[group.family] * group.errors[candidate];
  }
  int64_t total_weights() const;
};

// Whether bits can be chosen: weight-only integers.
bool HasCandidates(const QuantScheme& base);

// Weight-only integers of 2, 3, 4, 5, 6 and 8 bits with the groups and zero points of `base`; 4 and
// 8 alone for the servers that have no others.
std::vector<QuantScheme> CandidatesFor(const QuantScheme& base, ServingTarget::Stack stack);

// What is known without measuring: groups with their bits, all of one family; errors are 0.
// REQUIRES: HasCandidates of the recipe's scheme.
Sensitivity CountBits(const ModelSource& source, const QuantizePlan& plan);

// In how many depths neighbouring blocks are probed together: each block alone, but at most 32
// depths (129 streams), and no more than what fits a quarter of `budget` (bytes; 0: no limit) with
// `tokens` tokens in each stream; at least one.
size_t ProbeDepths(const DecoderSpec& spec, int64_t tokens, int64_t budget);

// done of total steps, and the layer. May throw to stop.
using SensitivityProgress =
    std::function<void(int64_t done, int64_t total, const std::string& what)>;

// Throws Error(kUsage) where the plan's own scheme has no candidates, or rules name every
// layer. Calibration windows: at most 32 of the recipe's for the Gram matrices, another one (the
// text's last) for the divergences. Error(kBadInput) where the samples leave none. Deterministic;
// independent of the number of threads.
Sensitivity MeasureSensitivity(Backend& backend, Exec& exec, const ModelSource& source,
                               const QuantizePlan& plan, const SensitivityProgress& progress);

// The windows that a budget is measured on: the last sixteen of the calibration text, or as many as
// the recipe's samples leave. Error(kBadInput) where they leave none.
TokenWindows HeldOutWindows(const ModelSource& source, const CalibrationRecipe& recipe);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_SENSITIVITY_H_
