// A plan and a sensitivity as reports.
#ifndef QUANTMILL_QUANT_PIPELINE_PLAN_REPORT_H_
#define QUANTMILL_QUANT_PIPELINE_PLAN_REPORT_H_

#include <optional>

#include "quant/pipeline/plan.h"
#include "quant/pipeline/sensitivity.h"
#include "quant/report/results.h"

namespace quantmill {

PlanReport DescribePlan(const ModelSource& source, const QuantizePlan& plan);
SensitivityTable DescribeSensitivity(const Sensitivity& sensitivity);

// A calibration of fewer tokens than the widest layer has inputs leaves its Gram matrix singular:
// an event that names the number that would do. Empty where there are enough, or none are needed.
std::optional<Event> ShortCalibration(const QuantizePlan& plan);

// Experts that the router of a block chose for no calibration token: an event that names them.
// Empty where there are none.
std::optional<Event> UnreachedExperts(const MixtureCoverage& coverage);

// A head that is stored beside the embedding, though tied to it, and differs from it: an event.
std::optional<Event> DroppedHead(const ModelSource& source);

// A rotation makes a head that was tied to the embedding a tensor of its own: an event with its
// size. `source`: the dense checkpoint, or its rotated stand-in.
std::optional<Event> UntiedHead(const ModelSource& source, const Recipe& recipe);

// Matrices of a GGUF file that get other blocks than the type that was asked for: once for each
// pair of types and width, naming the first.
std::vector<Event> BlockFallbacks(const QuantizePlan& plan);

// What the server of the plan loads with some releases alone, or slowly.
std::vector<Event> TargetNotes(const ModelSource& source, const QuantizePlan& plan);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_PLAN_REPORT_H_
