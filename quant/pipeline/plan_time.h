// How long a run will take, from a sample of it.
#ifndef QUANTMILL_QUANT_PIPELINE_PLAN_TIME_H_
#define QUANTMILL_QUANT_PIPELINE_PLAN_TIME_H_

#include "quant/pipeline/plan.h"
#include "quant/pipeline/quantize.h"

namespace quantmill {

// Quantizes the first block as the run would, on fewer calibration tokens, keeps nothing, and
// scales each phase to all blocks and tokens. Takes about one block's share of the run. `write` and
// `verify` stay 0: they are the disk's. Throws as Quantize does.
PhaseSeconds EstimateSeconds(Backend& backend, Exec& exec, const ModelSource& source,
                             const QuantizePlan& plan, const QuantizeCallbacks& callbacks);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_PLAN_TIME_H_
