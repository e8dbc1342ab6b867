// Round to nearest: the baseline of every solver, and the fallback of those that can fail.
#ifndef QUANTMILL_QUANT_SOLVE_RTN_H_
#define QUANTMILL_QUANT_SOLVE_RTN_H_

#include "quant/solve/solver.h"

namespace quantmill {

// Each weight to the nearest code of its group's grid. weight: [out, in] F32, backend memory,
// finite; may be of any size. The error is weighed by `weights`, unless it is null. Deterministic;
// independent of the number of threads.
SolveResult SolveRtn(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                     const Grid& grid, const ErrorWeights* weights = nullptr);
// On the MinMax grid, without statistics.
SolveResult SolveRtn(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_SOLVE_RTN_H_
