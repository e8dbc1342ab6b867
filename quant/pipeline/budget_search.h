// Budgets that only a measurement can confirm: "kl<=0.05", "perplexity<=+1%".
#ifndef QUANTMILL_QUANT_PIPELINE_BUDGET_SEARCH_H_
#define QUANTMILL_QUANT_PIPELINE_BUDGET_SEARCH_H_

#include <functional>
#include <string>

#include "quant/pipeline/budget.h"
#include "quant/pipeline/quantize.h"

namespace quantmill {

struct BudgetTrial {
  double average_bits = 0;
  double measured = 0;  // KL in nats a token, or the growth of the perplexity as a share
  bool kept = false;    // within the limit
};

struct BudgetSearchOptions {
  int max_trials = 5;
  std::function<void(const BudgetTrial&)> on_trial;
};

// The recipe of the fewest bits that a trial has confirmed: quantizes with a prediction, measures
// the artifact against the original on windows at the end of the calibration text, which the result
// leaves out (CalibrationRecipe::held_out), and moves the target by bisection. What the trial
// measured is in the result's chosen_for. Trials are written
// to a hidden sibling of `scratch`, a path that does not exist. Quantize with the result writes the
// confirmed artifact again, byte for byte. Throws Error(kUsage) where no trial keeps the limit.
Recipe SearchBudget(Backend& backend, Exec& exec, const ModelSource& source, const Recipe& recipe,
                    const Sensitivity& sensitivity, const std::string& scratch,
                    const QuantizeCallbacks& callbacks, const BudgetSearchOptions& options);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_BUDGET_SEARCH_H_
