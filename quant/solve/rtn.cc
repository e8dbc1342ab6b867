#include "quant/solve/rtn.h"

namespace quantmill {

SolveResult SolveRtn(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme) {
  return SolveRtn(backend, exec, weight, scheme, MinMax(backend, exec, weight, scheme));
}

SolveResult SolveRtn(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                     const Grid& grid, const ErrorWeights* weights) {
  const Tensor codes = backend.Empty(DType::kI8, weight.rows, weight.cols);
  backend.RoundToGrid(exec, weight, scheme, grid.scales, grid.zero_points, codes);
  SolveResult result;
  result.linear = DownloadLinear(backend, exec, scheme, grid, codes);
  result.relative_error = RelativeError(backend, exec, weight, result.linear, weights);
  return result;
}

}  // namespace quantmill
