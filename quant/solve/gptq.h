// GPTQ (algorithms.md section 1): codes chosen column by column, each column's rounding error moved
// onto the columns still open, so that tr(dW H dW^T) is small. H = X^T X over calibration tokens.
#ifndef QUANTMILL_QUANT_SOLVE_GPTQ_H_
#define QUANTMILL_QUANT_SOLVE_GPTQ_H_

#include <string>

#include "quant/solve/input_statistics.h"
#include "quant/solve/solver.h"

namespace quantmill {

struct GptqOptions {
  double damp_percent = 0.01;  // damping as a share of mean(diag H) over the inputs that live
  // Solve the columns of large H_ii first (ties by index). Groups stay where they are, so the
  // artifact needs no g_idx.
  bool act_order = true;
  // A failed factorization is tried once more in F64; then each failure doubles the damping, up to
  // mean(diag H) itself. More digits come first, because damping changes the problem.
  int max_tries = 8;
};

// The factorization of one input's statistics. The linears that share an input (q, k, v; gate, up)
// share one. Made by PrepareGptq; immutable.
class GptqFactor {
 public:
  int64_t in() const { return statistics_.in(); }
  // False: no damping made H positive definite. SolveGptq then rounds to nearest.
  bool ok() const { return ok_; }
  double damp() const { return damp_; }  // absolute; 0 unless ok
  const std::vector<int32_t>& order() const { return statistics_.order(); }
  const std::vector<bool>& dead() const { return statistics_.dead(); }
  const std::vector<SolveEvent>& events() const { return events_; }
  // Upper triangle: R (if ok). Strict lower: H. Both in solve order.
  ConstMatrix gram() const { return statistics_.gram(); }
  // diag H + damp in solve order, 0 where dead: what RefineCodes weighs by. [1, in] F32.
  ConstMatrix damped_diagonal() const { return damped_diagonal_; }
  // H itself, for errors.
  const ErrorWeights& error_weights() const { return statistics_.error_weights(); }

 private:
  friend GptqFactor PrepareGptq(Backend& backend, Exec& exec, InputStatistics statistics,
                                const GptqOptions& options);
  explicit GptqFactor(InputStatistics statistics) : statistics_(std::move(statistics)) {}
  void Factor(Backend& backend, Exec& exec, const GptqOptions& options);
  void SetDampedDiagonal(Backend& backend, Exec& exec);

  InputStatistics statistics_;
  Tensor damped_diagonal_;
  bool ok_ = false;
  double damp_ = 0;
  std::vector<SolveEvent> events_;
};

// Factors in place; further memory grows with `in`, not with its square (except for a try in F64).
GptqFactor PrepareGptq(Backend& backend, Exec& exec, InputStatistics statistics,
                       const GptqOptions& options);
// The same from a Gram matrix (InputStatistics says what it must hold).
GptqFactor PrepareGptq(Backend& backend, Exec& exec, Tensor gram, const GptqOptions& options);

// target: [out, in] F32, backend memory, finite, original column order: the weight, or what stands
// for it (asymmetric_target.h).
// The target of a dead input counts as 0: its codes are those of 0.
// refine_sweeps: sweeps of coordinate descent over the codes afterwards (Backend::RefineCodes),
// each of which can only lower the damped error.
// Where the factor is not ok, or the solve overflows: round to nearest, and an event.
// The error is that of the returned linear under H (SolveResult), also after a fallback.
SolveResult SolveGptq(Backend& backend, Exec& exec, const GptqFactor& factor, ConstMatrix target,
                      const QuantScheme& scheme, const Grid& grid, int refine_sweeps = 0);
// On the MinMax grid.
SolveResult SolveGptq(Backend& backend, Exec& exec, const GptqFactor& factor, ConstMatrix target,
                      const QuantScheme& scheme);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_SOLVE_GPTQ_H_
