// The Gram matrix of one input, made ready for the solvers of the layers that share it.
#ifndef QUANTMILL_QUANT_SOLVE_INPUT_STATISTICS_H_
#define QUANTMILL_QUANT_SOLVE_INPUT_STATISTICS_H_

#include <optional>
#include <string>
#include <vector>

#include "quant/solve/solver.h"

namespace quantmill {

// H with its columns in solve order, all of the square. Move-only.
class InputStatistics {
 public:
  // gram: [in, in] F32, backend memory, upper triangle filled (Backend::AddGram); consumed.
  // act_order: columns of large H_ii first (ties by index); otherwise as they are.
  // An input with H_ii = 0 is dead: it was zero in every token. It gets H_ii = 1, counts for
  // neither the damping nor the error, and is an event. Throws Error(kBadInput), naming `where`, if
  // a diagonal element is negative or not finite.
  InputStatistics(Backend& backend, Exec& exec, Tensor gram, bool act_order,
                  const std::string& where);
  InputStatistics(InputStatistics&&) = default;
  InputStatistics& operator=(InputStatistics&&) = delete;

  int64_t in() const { return gram_.rows(); }
  const std::vector<int32_t>& order() const { return weights_.order; }
  const std::vector<bool>& dead() const { return weights_.dead; }
  double mean_diagonal() const { return mean_diagonal_; }  // over the inputs that live; 1 if none
  const ErrorWeights& error_weights() const { return weights_; }
  const std::optional<SolveEvent>& dead_columns() const { return dead_columns_; }
  // The square, whose upper triangle a factorization may overwrite.
  Matrix gram() const { return gram_; }
  ConstMatrix diagonal() const { return diagonal_; }  // [1, in] F32: as ErrorWeights::diagonal

 private:
  Tensor gram_;
  Tensor diagonal_;
  ErrorWeights weights_;
  double mean_diagonal_ = 1;
  std::optional<SolveEvent> dead_columns_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_SOLVE_INPUT_STATISTICS_H_
