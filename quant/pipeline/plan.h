// What a run will do and need, known before it starts.
#ifndef QUANTMILL_QUANT_PIPELINE_PLAN_H_
#define QUANTMILL_QUANT_PIPELINE_PLAN_H_

#include <string>
#include <vector>

#include "formats/artifact.h"
#include "quant/calib/calibration_stream.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/recipe.h"
#include "quant/report/results.h"

namespace quantmill {

struct QuantizePlan {
  Recipe recipe;                         // resolved: scale type, compute
  std::vector<QuantizedModule> modules;  // in order of blocks and sites
  std::vector<std::string> dense;        // linear modules left as they are (lm_head)
  StreamOptions stream;                  // what is kept and what is recomputed, to fit the budget
  MemoryPlan memory;
};

// Throws
//   Error(kBadInput)     the source is quantized already;
//   Error(kUsage)        groups that do not divide a layer's width (all such layers are listed,
//   with
//                        the group sizes that fit), a format that cannot hold the scheme;
//   Error(kEnvironment)  --max-host-mem below the least that would do, which is named.
QuantizePlan PlanQuantization(const ModelSource& source, const Recipe& recipe,
                              const BackendInfo& backend);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_PLAN_H_
