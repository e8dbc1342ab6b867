// How much memory a run will take at most, known before it starts.
#ifndef QUANTMILL_QUANT_PIPELINE_MEMORY_ESTIMATE_H_
#define QUANTMILL_QUANT_PIPELINE_MEMORY_ESTIMATE_H_

#include "kernels/core/dtype.h"
#include "kernels/ops.h"
#include "quant/model/decoder_spec.h"
#include "quant/pipeline/plan.h"

namespace quantmill {

// The largest memory over the run, item by item: of the host, and of the backend where that has its
// own. What is freed before something else is needed counts once, as the larger of the two. Without
// notes. `plan`: what is quantized and how, recipe and stream; `stored`: the type of the
// checkpoint's linears.
MemoryPlan EstimateMemory(const DecoderSpec& spec, DType stored, const QuantizePlan& plan,
                          const BackendInfo& backend);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_MEMORY_ESTIMATE_H_
