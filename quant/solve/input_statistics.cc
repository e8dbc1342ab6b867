#include "quant/solve/input_statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace quantmill {
namespace {

// The diagonal of a square matrix as a column of stride in + 1.
std::vector<float> DiagonalOf(Backend& backend, Exec& exec, ConstMatrix square) {
  std::vector<float> diagonal(static_cast<size_t>(square.rows));
  const ConstMatrix view{square.data, square.dtype, square.rows, 1, square.stride + 1};
  backend.Download(exec, view, MutableViewOf(diagonal.data(), square.rows, 1));
  return diagonal;
}

void CheckDiagonal(const std::vector<float>& diagonal, const std::string& where) {
  for (size_t i = 0; i < diagonal.size(); ++i) {
    if (std::isfinite(diagonal[i]) && diagonal[i] >= 0) continue;
    throw Error(ErrorCode::kBadInput, where,
                "the sum of squares of input " + std::to_string(i) +
                    " over the calibration tokens is " + std::to_string(diagonal[i]) +
                    "; the activations overflow or hold NaN: check the checkpoint, or run the "
                    "model in F32");
  }
}

double MeanOfLiving(const std::vector<float>& diagonal, const std::vector<bool>& dead) {
  double sum = 0;
  int64_t count = 0;
  for (size_t i = 0; i < diagonal.size(); ++i) {
    if (dead[i]) continue;
    sum += static_cast<double>(diagonal[i]);
    ++count;
  }
  return count == 0 ? 1 : sum / static_cast<double>(count);
}

std::vector<int32_t> SolveOrder(const std::vector<float>& diagonal, bool act_order) {
  std::vector<int32_t> order(diagonal.size());
  std::iota(order.begin(), order.end(), 0);
  if (!act_order) return order;
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return diagonal[static_cast<size_t>(a)] > diagonal[static_cast<size_t>(b)];
  });
  return order;
}

}  // namespace

InputStatistics::InputStatistics(Backend& backend, Exec& exec, Tensor gram, bool act_order,
                                 const std::string& where) {
  Check(gram.dtype() == DType::kF32 && gram.rows() == gram.cols(),
        "InputStatistics: gram is square");
  const std::vector<float> diagonal = DiagonalOf(backend, exec, gram);
  CheckDiagonal(diagonal, where);
  for (const float x : diagonal) weights_.dead.push_back(x == 0);
  const auto dead_count = std::count(weights_.dead.begin(), weights_.dead.end(), true);
  if (dead_count > 0) {
    dead_columns_ = {SolveEvent::Kind::kDeadColumns,
                     std::to_string(dead_count) + " of " + std::to_string(diagonal.size()) +
                         " inputs were zero in every calibration token; their weights are "
                         "stored as 0",
                     static_cast<double>(dead_count)};
  }
  mean_diagonal_ = MeanOfLiving(diagonal, weights_.dead);

  weights_.order = SolveOrder(diagonal, act_order);
  backend.PermuteGram(exec, weights_.order, gram);
  std::vector<float> permuted;
  for (const int32_t i : weights_.order) {
    const auto at = static_cast<size_t>(i);
    permuted.push_back(weights_.dead[at] ? 1.0f : diagonal[at]);
  }
  diagonal_ = backend.Empty(DType::kF32, 1, gram.rows());
  backend.Upload(exec, ViewOf(permuted.data(), 1, gram.rows()), diagonal_);
  exec.stream.Synchronize();  // `permuted` is read until then
  gram_ = std::move(gram);
  weights_.gram = gram_;
  weights_.diagonal = diagonal_;
}

}  // namespace quantmill
