// SmoothQuant (algorithms.md section 3): the scales that it tries, and channels far above the rest.
#ifndef QUANTMILL_QUANT_TRANSFORM_SMOOTHQUANT_H_
#define QUANTMILL_QUANT_TRANSFORM_SMOOTHQUANT_H_

#include <vector>

#include "quant/transform/fold_problem.h"

namespace quantmill {

// s = x^alpha / w^(1 - alpha), normalized and rounded; x, w: the largest |input| and |weight| of
// the columns that a scale serves, at least 1e-5. It multiplies the weights and divides the inputs.
std::vector<float> SmoothingScales(const FoldProblem& problem, double alpha);

// SmoothingScales for alpha = 0, 0.05 .. 1.
std::vector<std::vector<float>> SmoothingCandidates(const FoldProblem& problem);

struct OutlierChannels {
  int64_t count = 0;    // channels whose absmax is more than kOutlierRatio times the median
  int64_t largest = 0;  // the channel of the largest absmax
  double ratio = 0;     // of that absmax to the median; 0 if the median is 0
};
inline constexpr double kOutlierRatio = 20;
OutlierChannels FindOutliers(const std::vector<float>& absmax);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_TRANSFORM_SMOOTHQUANT_H_
