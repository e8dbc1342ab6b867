// Scales chosen by the error that they leave in the layer's output, not in its weights: for each
// group the candidate with the least d H_gg d^T, H_gg being the group's own block of the Gram
// matrix (algorithms.md section 1, "Hessian-weighted clip").
#ifndef QUANTMILL_QUANT_SOLVE_SCALE_SEARCH_H_
#define QUANTMILL_QUANT_SOLVE_SCALE_SEARCH_H_

#include <optional>
#include <span>

#include "quant/solve/solver.h"

namespace quantmill {

// Whether SearchScales searches: rows that share scales, and tensors of one scale, keep MinMax.
bool SearchesScales(const QuantScheme& scheme);

// The blocks of H that weigh the errors of `scheme`'s groups, as Backend::SearchGrid reads them:
// [in, block] F32, backend memory. Blocks of a group wider than 128 inputs are cut: correlations
// across the cuts are not seen. gram: [in, in] F32, backend memory, upper triangle filled.
Tensor GramBlocks(Backend& backend, Exec& exec, ConstMatrix gram, const QuantScheme& scheme);

// The blocks of the inputs x_i / columns[i], which read weights scaled by `columns` ([in],
// positive).
Tensor ScaledBlocks(Backend& backend, Exec& exec, ConstMatrix gram_blocks,
                    std::span<const float> columns);

// The best grid found for `weight` ([out, in] F32, backend memory, finite), the MinMax grid among
// the candidates. Symmetric integers also try the mirrored grid (a negative scale): its eighth
// negative code then serves the longer positive tail. Errors as MinMax.
Grid SearchScales(Backend& backend, Exec& exec, ConstMatrix weight, ConstMatrix gram_blocks,
                  const QuantScheme& scheme, std::optional<float> global_scale = std::nullopt);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_SOLVE_SCALE_SEARCH_H_
