// What rounding the scaled weights really leaves in the output, by the Gram matrix: no token is run
// again.
#ifndef QUANTMILL_QUANT_TRANSFORM_ROUNDING_SCORE_H_
#define QUANTMILL_QUANT_TRANSFORM_ROUNDING_SCORE_H_

#include <vector>

#include "kernels/ops.h"
#include "quant/transform/fold_problem.h"

namespace quantmill {

// With dW = Q(W diag(s)) diag(1/s) - W, Q rounding to the smallest covering grid or to the one that
// SearchScales finds, over an even sample of the rows:
//   tr(dW H dW^T) where H is given;
//   sum_oi dW_oi^2 importance_i otherwise (what is left to a solver that moves errors between
//   columns: importance is then what it cannot move).
// Borrows backend, exec and problem. Not thread-safe.
class RoundingScore {
 public:
  // gram: H, [in, in] F32, backend memory, upper triangle filled; copied. Or empty.
  RoundingScore(Backend& backend, Exec& exec, const FoldProblem& problem, ConstMatrix gram);

  // scales: [problem.scales]. Infinity where a grid does not fit its type.
  double OnSmallestGrid(const std::vector<float>& scales);
  // gram_blocks: GramBlocks of H, backend memory. Some twenty times the work.
  double OnSearchedGrid(const std::vector<float>& scales, ConstMatrix gram_blocks);

 private:
  // Empty: the smallest grid.
  double Score(const std::vector<float>& scales, ConstMatrix gram_blocks);
  bool Round(const std::vector<float>& columns, ConstMatrix gram_blocks);
  double WeighedByGram();
  double WeighedByImportance() const;

  Backend& backend_;
  Exec& exec_;
  const FoldProblem& problem_;
  std::vector<int64_t> rows_;
  Tensor gram_;      // the full square, or empty
  Tensor diagonal_;  // [1, in]
  Tensor host_;      // [rows, in] F32: scaled weights, then dW
  Tensor device_;    // the same in the backend's memory
  Tensor codes_;
  Tensor forms_;  // [1, rows]
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_TRANSFORM_ROUNDING_SCORE_H_
