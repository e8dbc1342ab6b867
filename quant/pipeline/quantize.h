// The main flow: a dense checkpoint in, a verified artifact out.
#ifndef QUANTMILL_QUANT_PIPELINE_QUANTIZE_H_
#define QUANTMILL_QUANT_PIPELINE_QUANTIZE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "kernels/ops.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/plan.h"
#include "quant/pipeline/recipe.h"
#include "quant/report/results.h"

namespace quantmill {

// Where the work is, for a progress line. Called from the calling thread, often.
struct QuantizeProgress {
  std::string phase;  // "quantizing", "verifying"
  int64_t done = 0;   // sites (gptq) or layers (rtn, verify)
  int64_t total = 0;
  std::string layer;             // being worked on
  double tokens_per_second = 0;  // calibration tokens through a whole block, so far
};

struct QuantizeCallbacks {
  std::function<void(const MemoryPlan&)> on_plan;  // once, before work starts
  std::function<void(const QuantizeProgress&)> on_progress;
  // Something to tell, before the first progress.
  std::function<void(const std::string&)> on_note;
  // Polled between steps (at most seconds apart); true ends the run with Error(kInterrupted) and
  // nothing is left behind; or, with savepoints, Error(kResumable).
  std::function<bool()> interrupted;
};

struct OutputOptions {
  bool force = false;  // an existing output is replaced
  // Calibrated blocks that are finished are kept beside the output until it is complete
  // (savepoints.h), if the disk has room for both.
  bool savepoints = false;
  bool resume = false;  // those that an earlier run left are used; REQUIRES: savepoints
};

// Quantizes `source` (the stand-in of a RotatedModel where recipe.rotate) by `recipe` into the
// folder `output` (atomic: it appears complete and verified, or not at all; an existing one is
// refused without `force`). Refuses what cannot work before any calibration. A resumed run gives
// the bytes of one that was not interrupted. Throws Error; kVerification when the written file
// fails its own check, or events exceed max_fallbacks (nothing is kept then).
QuantizeReport Quantize(Backend& backend, Exec& exec, const ModelSource& source,
                        const Recipe& recipe, const std::string& output,
                        const OutputOptions& options, const QuantizeCallbacks& callbacks);

// Tells where the work is. Throws Error(kInterrupted) if it is to end.
void ReportProgress(const QuantizeCallbacks& callbacks, const QuantizeProgress& progress);

// Largest resident set of this process so far, bytes.
int64_t PeakResidentBytes();

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_QUANTIZE_H_
