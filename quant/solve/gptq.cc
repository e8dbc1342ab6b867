#include "quant/solve/gptq.h"

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

void CheckDiagonal(const std::vector<float>& diagonal) {
  for (size_t i = 0; i < diagonal.size(); ++i) {
    if (std::isfinite(diagonal[i]) && diagonal[i] >= 0) continue;
    throw Error(ErrorCode::kBadInput, "calibration statistics",
                "the sum of squares of input " + std::to_string(i) + " is " +
                    std::to_string(diagonal[i]) +
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

std::string Percent(double share) {
  std::string text = std::to_string(share * 100);
  return text.substr(0, text.find('.') + 3) + " % of the mean diagonal";
}

// Codes of dead inputs: those of weight 0.
void ClearDead(const std::vector<bool>& dead, QuantizedLinear& linear) {
  const int64_t groups = linear.groups();
  const int64_t size = linear.scheme.GroupSizeFor(linear.in);
  for (int64_t i = 0; i < linear.in; ++i) {
    if (!dead[static_cast<size_t>(i)]) continue;
    for (int64_t o = 0; o < linear.out; ++o) {
      const auto group = static_cast<size_t>(o * groups + i / size);
      linear.codes[static_cast<size_t>(o * linear.in + i)] =
          linear.scheme.symmetric ? static_cast<int8_t>(0) : linear.zero_points[group];
    }
  }
}

bool AllFinite(Backend& backend, Exec& exec, ConstMatrix loss) {
  std::vector<float> rows(static_cast<size_t>(loss.cols));
  backend.Download(exec, loss, MutableViewOf(rows.data(), 1, loss.cols));
  return std::all_of(rows.begin(), rows.end(), [](float x) { return std::isfinite(x); });
}

SolveEvent Fallback(std::string why, double damp_share) {
  return {SolveEvent::Kind::kRoundToNearestFallback, std::move(why) + "; rounded to nearest",
          damp_share};
}

}  // namespace

GptqFactor PrepareGptq(Backend& backend, Exec& exec, Tensor gram, const GptqOptions& options) {
  Check(gram.dtype() == DType::kF32 && gram.rows() == gram.cols(), "PrepareGptq: gram is square");
  GptqFactor factor;
  const std::vector<float> diagonal = DiagonalOf(backend, exec, gram);
  CheckDiagonal(diagonal);
  std::vector<bool>& dead = factor.weights_.dead;
  for (const float x : diagonal) dead.push_back(x == 0);
  const auto dead_count = std::count(dead.begin(), dead.end(), true);
  if (dead_count > 0) {
    factor.events_.push_back(
        {SolveEvent::Kind::kDeadColumns,
         std::to_string(dead_count) + " of " + std::to_string(dead.size()) +
             " inputs were zero in every calibration token; their weights are stored as 0",
         static_cast<double>(dead_count)});
  }

  factor.weights_.order = SolveOrder(diagonal, options.act_order);
  backend.PermuteGram(exec, factor.weights_.order, gram);
  std::vector<float> permuted;
  for (const int32_t i : factor.weights_.order) {
    const auto at = static_cast<size_t>(i);
    permuted.push_back(dead[at] ? 1.0f : diagonal[at]);
  }
  factor.diagonal_ = backend.Empty(DType::kF32, 1, gram.rows());
  backend.Upload(exec, ViewOf(permuted.data(), 1, gram.rows()), factor.diagonal_);
  exec.stream.Synchronize();  // `permuted` is read until then

  const double mean = MeanOfLiving(diagonal, dead);
  double share = options.damp_percent;
  int64_t failed_column = -1;
  for (int tries = 0; tries < options.max_tries && !factor.ok_; ++tries) {
    if (tries > 0) {
      if (share >= 1) break;
      share = std::min(1.0, share * 2);
    }
    const FactorResult result =
        backend.FactorGram(exec, factor.diagonal_, static_cast<float>(share * mean), gram);
    if (result.ok) {
      factor.ok_ = true;
      factor.damp_ = static_cast<double>(static_cast<float>(share * mean));
    } else {
      failed_column = result.failed_column;
    }
    if (result.ok && tries > 0) {
      factor.events_.push_back({SolveEvent::Kind::kDampingRaised,
                                "the Gram matrix needed a damping of " + Percent(share) + " (" +
                                    std::to_string(tries) + " tries with less failed)",
                                share});
    }
  }
  if (!factor.ok_) {
    factor.events_.push_back(Fallback("the Gram matrix is not positive definite (solve column " +
                                          std::to_string(failed_column) + ") up to a damping of " +
                                          Percent(share),
                                      share));
  }
  factor.gram_ = std::move(gram);
  factor.weights_.gram = factor.gram_;
  factor.weights_.diagonal = factor.diagonal_;
  return factor;
}

SolveResult SolveGptq(Backend& backend, Exec& exec, const GptqFactor& factor, ConstMatrix weight,
                      const QuantScheme& scheme) {
  return SolveGptq(backend, exec, factor, weight, scheme, MinMax(backend, exec, weight, scheme));
}

SolveResult SolveGptq(Backend& backend, Exec& exec, const GptqFactor& factor, ConstMatrix weight,
                      const QuantScheme& scheme, const Grid& grid) {
  Check(weight.cols == factor.in(), "SolveGptq: weight and statistics differ in their inputs");
  SolveResult result;
  result.events = factor.events();
  result.damp = factor.damp();
  const Tensor codes = backend.Empty(DType::kI8, weight.rows, weight.cols);
  bool solved = false;
  if (factor.ok()) {
    const Tensor loss = backend.Empty(DType::kF32, 1, weight.rows);
    backend.GptqSolve(
        exec, {weight, factor.gram(), factor.order(), scheme, grid.scales, grid.zero_points}, codes,
        loss);
    solved = AllFinite(backend, exec, loss);
    if (!solved) {
      result.damp = 0;
      result.events.push_back(Fallback("the solve overflowed", 0));
    }
  }
  if (!solved) {
    backend.RoundToGrid(exec, weight, scheme, grid.scales, grid.zero_points, codes);
  }
  result.linear = DownloadLinear(backend, exec, scheme, grid, codes);
  if (solved) ClearDead(factor.dead(), result.linear);
  result.relative_error =
      RelativeError(backend, exec, weight, result.linear, &factor.error_weights());
  return result;
}

}  // namespace quantmill
