// Mixed precision: which layers take how many bits, for a budget.
#ifndef QUANTMILL_QUANT_PIPELINE_BUDGET_H_
#define QUANTMILL_QUANT_PIPELINE_BUDGET_H_

#include <string>

#include "quant/pipeline/recipe.h"
#include "quant/pipeline/sensitivity.h"

namespace quantmill {

// "4.5bits", "kl<=0.05", "perplexity<=+1%". Throws Error(kUsage, where) saying these forms.
Budget ParseBudget(const std::string& text, const std::string& where);
std::string BudgetText(const Budget& budget);  // the inverse

struct BitAllocation {
  std::vector<size_t> candidates;  // of each group of the sensitivity
  double average_bits = 0;         // over all quantized layers of the blocks, scales counted
  double predicted_kl = 0;         // nats a token
};

// Throws Error(kUsage) naming the least that is possible where `average_bits` are fewer. Errors are
// not looked at: CountBits is enough.
void CheckBits(const Sensitivity& sensitivity, double average_bits);

// The least predicted divergence within `average_bits`, exactly (SolveKnapsack). Throws as
// CheckBits.
BitAllocation AllocateBits(const Sensitivity& sensitivity, double average_bits);

// The least average bits whose predicted divergence is at most `kl` (to a thousandth of a bit), or
// the most bits there are.
double BitsForDivergence(const Sensitivity& sensitivity, double kl);

// What a budget starts from: the best within its bits, or the fewest bits predicted to keep its
// limit (a growth of the loss is taken to be as large as the divergence). Throws as AllocateBits.
BitAllocation PredictAllocation(const Sensitivity& sensitivity, const Budget& budget);

// `recipe` with a rule for each group that differs from its scheme, and with what was chosen for
// its budget (Recipe::chosen_for, not measured) instead of that.
Recipe Allocated(const Recipe& recipe, const Sensitivity& sensitivity,
                 const BitAllocation& allocation);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_BUDGET_H_
