#include "quant/pipeline/plan_time.h"

#include <algorithm>

#include "quant/pipeline/fold_block.h"
#include "quant/pipeline/quantize_run.h"

namespace quantmill {
namespace {

constexpr int64_t kSampleTokens = 4096;
constexpr int64_t kFewestWindows = 4;  // some are held out of the solve

// Windows of the sample. The search for scales of inputs takes a fixed number of tokens, and must
// find them here too.
int64_t SampleWindows(const Recipe& recipe) {
  const int64_t tokens =
      recipe.transform == Transform::kNone ? kSampleTokens : kFoldingStatisticsTokens;
  const CalibrationRecipe& calibration = recipe.calibration;
  return std::min(calibration.samples,
                  std::max(kFewestWindows, tokens / calibration.sequence_length));
}

}  // namespace

PhaseSeconds EstimateSeconds(Backend& backend, Exec& exec, const ModelSource& source,
                             const QuantizePlan& plan, const QuantizeCallbacks& callbacks) {
  QuantizePlan sample = plan;
  sample.recipe.calibration.samples = SampleWindows(plan.recipe);
  QuantizeReport report;
  QuantizeRun run(backend, exec, source, sample, callbacks, nullptr, nullptr, report);
  double token_ratio = 1;
  if (plan.recipe.calibrated()) {
    run.CalibrateAndSolve(1);
    token_ratio = static_cast<double>(plan.recipe.calibration.samples) /
                  static_cast<double>(sample.recipe.calibration.samples);
  } else {
    run.RoundBlocks(1);
  }
  const auto blocks = static_cast<double>(source.spec().blocks.size());
  PhaseSeconds seconds;
  seconds.load = report.seconds.load * blocks;
  seconds.fold = report.seconds.fold * blocks;
  seconds.solve = report.seconds.solve * blocks;
  seconds.forward = report.seconds.forward * blocks * token_ratio;
  seconds.statistics = report.seconds.statistics * blocks * token_ratio;
  seconds.total =
      seconds.load + seconds.fold + seconds.solve + seconds.forward + seconds.statistics;
  return seconds;
}

}  // namespace quantmill
