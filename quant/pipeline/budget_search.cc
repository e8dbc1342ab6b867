#include "quant/pipeline/budget_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>

#include "formats/output_folder.h"
#include "kernels/core/error.h"
#include "quant/runtime/decoder_model.h"
#include "quant/runtime/evaluate.h"

namespace quantmill {
namespace {

// Bits between two trials that are not worth another one.
constexpr double kCloseBits = 0.02;

double Measure(Backend& backend, Exec& exec, const ModelSource& source, const std::string& artifact,
               const TokenWindows& held, const Recipe& recipe) {
  const ModelSource quantized = ModelSource::Open(artifact);
  const BackendInfo info = backend.Info();
  const Compute compute = ForManyTokens(
      recipe.compute.value_or(info.compute_bf16 ? Compute::kBF16 : Compute::kF32), info);
  DecoderModel original(backend, exec, source, compute);
  DecoderModel model(backend, exec, quantized, compute);
  EvaluationOptions windows;
  windows.window = held.length;
  std::array<DecoderModel*, 1> models = {&model};
  const std::vector<ModelScores> scores =
      Evaluate(backend, exec, models, &original, CutWindows(held.ids, windows),
               [](int64_t, int64_t, double) {});
  const DivergenceResult& divergence = *scores.front().divergence;
  return recipe.budget->kind == Budget::Kind::kKl ? divergence.kl_mean
                                                  : std::expm1(divergence.delta_nll);
}

}  // namespace

Recipe SearchBudget(Backend& backend, Exec& exec, const ModelSource& source, const Recipe& recipe,
                    const Sensitivity& sensitivity, const std::string& scratch,
                    const QuantizeCallbacks& callbacks, const BudgetSearchOptions& options) {
  const OutputFolder folder(scratch, false);  // never committed: removed on every way out
  const std::string trial_output = (folder.path() / "trial").string();
  const TokenWindows held = HeldOutWindows(source, recipe.calibration);
  Recipe calibrated = recipe;
  calibrated.calibration.held_out = held.count();
  double low = BitsForDivergence(sensitivity, std::numeric_limits<double>::infinity());
  double high = BitsForDivergence(sensitivity, 0);
  double bits = PredictAllocation(sensitivity, *recipe.budget).average_bits;
  std::optional<Recipe> best;
  for (int trial = 0; trial < options.max_trials && high - low > kCloseBits; ++trial) {
    const BitAllocation allocation = AllocateBits(sensitivity, bits);
    Recipe mixed = Allocated(calibrated, sensitivity, allocation);
    Quantize(backend, exec, source, mixed, trial_output, {.force = true}, callbacks);
    BudgetTrial done{allocation.average_bits, 0, false};
    done.measured = Measure(backend, exec, source, trial_output, held, recipe);
    done.kept = done.measured <= recipe.budget->limit;
    mixed.chosen_for->measured = done.measured;
    if (done.kept) best = mixed;
    (done.kept ? high : low) = bits;
    if (options.on_trial) options.on_trial(done);
    // Steps of half a bit until both sides are known: the prediction is rarely off by more.
    const bool bracketed = best.has_value() && trial > 0;
    bits = bracketed ? (low + high) / 2 : std::clamp(bits + (done.kept ? -0.5 : 0.5), low, high);
  }
  if (best) return *best;
  throw Error(ErrorCode::kUsage, "--budget",
              fmt::format("{}: no trial kept it ({} were made); a weaker limit, or smaller groups, "
                          "may do",
                          BudgetText(*recipe.budget), options.max_trials));
}

}  // namespace quantmill
