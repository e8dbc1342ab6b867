// The error that rounding is expected to leave in the output, as a function of the input scales.
//
// Rounding errors spread evenly over a step and independent of each other add
//   sum over groups g   A_g(s) B_g(s) / 12,   A_g = sum_rows step(row, g)^2
//                                             B_g = sum_{i in g} importance_i / s_i^2
// for the weights (step: of the smallest grid that covers max |w_i s_i| of the group), and
//   mean over tokens of step(token)^2 / 12  *  sum_i s_i^2 |column i of W|^2
// for inputs rounded to 8-bit integers (step: max |x_i / s_i| / 127). Both are convex in log s:
// sums and maxima of exponentials. That is what Balance descends.
// Symmetric grids of few bits err more at a group's largest weight, which may lie half a step past
// their end; RoundingScore sees that.
#ifndef QUANTMILL_QUANT_TRANSFORM_EXPECTED_ERROR_H_
#define QUANTMILL_QUANT_TRANSFORM_EXPECTED_ERROR_H_

#include <cstdint>
#include <vector>

#include "quant/transform/fold_problem.h"
#include "quant/transform/noise_term.h"

namespace quantmill {

// Whether the formulas above describe `scheme`: integer weights, inputs as they are or int8.
bool HasExpectedError(const QuantScheme& scheme);

// In mean squared output over tokens, summed over the rows of problem.weight.
struct ExpectedErrors {
  double weights = 0;
  double inputs = 0;  // 0 where inputs are not rounded
  double total() const { return weights + inputs; }
};
// REQUIRES: HasExpectedError(problem.scheme). scales: [problem.scales].
ExpectedErrors ExpectedError(const FoldProblem& problem, const std::vector<float>& scales);

// The terms of it: one for each group of inputs; one for the tokens, or none.
std::vector<NoiseTerm> WeightTerms(const FoldProblem& problem);
std::vector<NoiseTerm> InputTerms(const FoldProblem& problem);

// The scales of least expected error, found channel by channel from `start`; normalized and
// rounded. Deterministic. REQUIRES as above.
std::vector<float> Balance(const FoldProblem& problem, const std::vector<float>& start);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_TRANSFORM_EXPECTED_ERROR_H_
