#include "quant/solve/rtn.h"

namespace quantmill {

SolveResult SolveRtn(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme) {
  return SolveRtn(backend, exec, weight, scheme, MinMax(backend, exec, weight, scheme));
}

SolveResult SolveRtn(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                     const Grid& grid, const ErrorWeights* weights) {
  const Tensor codes = backend.Empty(DType::kI8, weight.rows, weight.cols);
  const Tensor shifted =
      grid.offsets.empty() ? Tensor() : LessOffsets(backend, exec, weight, scheme, grid);
  backend.RoundToGrid(exec, shifted.empty() ? weight : ConstMatrix(shifted), scheme, grid.scales,
                      grid.zero_points, codes);
  SolveResult result;
  result.linear = DownloadLinear(backend, exec, scheme, grid, codes);
  result.offsets = DownloadOffsets(backend, exec, grid);
  result.relative_error =
      RelativeError(backend, exec, weight, result.linear, weights, result.offsets);
  return result;
}

}  // namespace quantmill
