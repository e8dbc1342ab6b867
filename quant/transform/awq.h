// AWQ (algorithms.md section 2): the scales that it tries.
#ifndef QUANTMILL_QUANT_TRANSFORM_AWQ_H_
#define QUANTMILL_QUANT_TRANSFORM_AWQ_H_

#include <vector>

#include "quant/transform/fold_problem.h"

namespace quantmill {

// s = x^a, and with duo scaling x^a / (w^(1-a) + 1e-4), for a = 0, 1/19 .. 1, normalized and
// rounded (identity, x^0, is not listed). x: root mean square of the inputs that a scale serves; w:
// mean of |weight| / (largest of its row and group) over their weights.
std::vector<std::vector<float>> AwqCandidates(const FoldProblem& problem);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_TRANSFORM_AWQ_H_
