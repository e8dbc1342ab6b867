// GPTQ (algorithms.md section 1): codes chosen column by column, each column's rounding error moved
// onto the columns still open, so that tr(dW H dW^T) is small. H = X^T X over calibration tokens.
#ifndef QUANTMILL_QUANT_SOLVE_GPTQ_H_
#define QUANTMILL_QUANT_SOLVE_GPTQ_H_

#include "quant/solve/solver.h"

namespace quantmill {

struct GptqOptions {
  double damp_percent = 0.01;  // damping as a share of mean(diag H) over the inputs that live
  // Solve the columns of large H_ii first (ties by index). Groups stay where they are, so the
  // artifact needs no g_idx.
  bool act_order = true;
  // Each failed factorization doubles the damping, up to mean(diag H) itself.
  int max_tries = 8;
};

// The factorization of one input's statistics. The linears that share an input (q, k, v; gate, up)
// share one. Made by PrepareGptq; immutable.
class GptqFactor {
 public:
  int64_t in() const { return gram_.rows(); }
  // False: no damping made H positive definite. SolveGptq then rounds to nearest.
  bool ok() const { return ok_; }
  double damp() const { return damp_; }  // absolute; 0 unless ok
  const std::vector<int32_t>& order() const { return weights_.order; }
  const std::vector<bool>& dead() const { return weights_.dead; }
  const std::vector<SolveEvent>& events() const { return events_; }
  // Upper triangle: R (if ok). Strict lower: H. Both in solve order.
  ConstMatrix gram() const { return gram_; }
  // H itself, for errors.
  const ErrorWeights& error_weights() const { return weights_; }

 private:
  friend GptqFactor PrepareGptq(Backend& backend, Exec& exec, Tensor gram,
                                const GptqOptions& options);
  GptqFactor() = default;

  Tensor gram_;
  Tensor diagonal_;  // [1, in] F32: diag H in solve order, 1 where dead
  ErrorWeights weights_;
  bool ok_ = false;
  double damp_ = 0;
  std::vector<SolveEvent> events_;
};

// gram: [in, in] F32, backend memory, upper triangle filled (Backend::AddGram); consumed and
// factored in place; further memory grows with `in`, not with its square.
// An input with H_ii = 0 is dead: it was zero in every token. It gets H_ii = 1, counts for neither
// the damping nor the error, and is an event.
// Throws Error(kBadInput) if a diagonal element is negative or not finite.
GptqFactor PrepareGptq(Backend& backend, Exec& exec, Tensor gram, const GptqOptions& options);

// weight: [out, in] F32, backend memory, finite, original column order.
// The weight of a dead input counts as 0: its codes are the zero point of their group (0 if
// symmetric). Where the factor is not ok, or the solve overflows: round to nearest, and an event.
// The error is that of the returned linear under H (SolveResult), also after a fallback.
SolveResult SolveGptq(Backend& backend, Exec& exec, const GptqFactor& factor, ConstMatrix weight,
                      const QuantScheme& scheme);
SolveResult SolveGptq(Backend& backend, Exec& exec, const GptqFactor& factor, ConstMatrix weight,
                      const QuantScheme& scheme, const Grid& grid);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_SOLVE_GPTQ_H_
