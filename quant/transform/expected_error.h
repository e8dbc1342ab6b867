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

// Both sums of one problem, which it copies what it needs of. Deterministic.
class ExpectedError {
 public:
  // REQUIRES: HasExpectedError(problem.scheme).
  explicit ExpectedError(const FoldProblem& problem);

  // scales: [problem.scales].
  ExpectedErrors At(const std::vector<float>& scales) const;

  // The scales of least expected error, found scale by scale from `start`; normalized and rounded.
  // Works on the terms in place.
  std::vector<float> Balance(const std::vector<float>& start);

 private:
  int64_t scales_;
  std::vector<NoiseTerm> weights_;  // one for each group of inputs
  std::vector<NoiseTerm> inputs_;   // one for the tokens, or none
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_TRANSFORM_EXPECTED_ERROR_H_
