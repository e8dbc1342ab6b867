#include "quant/solve/gptq.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

namespace quantmill {
namespace {

std::string Percent(double share) {
  std::string text = std::to_string(share * 100);
  return text.substr(0, text.find('.') + 3) + " % of the mean diagonal";
}

// The code of a dead input, whose weight is 0 (float codes have 0 for it).
int8_t CodeOfZero(const QuantizedLinear& linear, std::span<const float> offsets, size_t group) {
  if (!linear.scheme.symmetric) return linear.zero_points[group];
  if (offsets.empty()) return 0;
  const float nearest = std::rint(-offsets[group] / linear.scales[group]);
  return static_cast<int8_t>(std::clamp(nearest, static_cast<float>(linear.scheme.min_code()),
                                        static_cast<float>(linear.scheme.max_code())));
}

void ClearDead(const std::vector<bool>& dead, std::span<const float> offsets,
               QuantizedLinear& linear) {
  const int64_t groups = linear.groups();
  const int64_t size = linear.scheme.GroupSizeFor(linear.in);
  for (int64_t i = 0; i < linear.in; ++i) {
    if (!dead[static_cast<size_t>(i)]) continue;
    for (int64_t o = 0; o < linear.out; ++o) {
      const auto group = static_cast<size_t>(o * groups + i / size);
      linear.codes[static_cast<size_t>(o * linear.in + i)] = CodeOfZero(linear, offsets, group);
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

void GptqFactor::Factor(Backend& backend, Exec& exec, const GptqOptions& options) {
  double share = options.damp_percent;
  int64_t failed_column = -1;
  const auto attempt = [&](Precision precision) {
    const auto damp = static_cast<float>(share * statistics_.mean_diagonal());
    const FactorResult result =
        backend.FactorGram(exec, statistics_.diagonal(), damp, precision, statistics_.gram());
    ok_ = result.ok;
    if (ok_) damp_ = static_cast<double>(damp);
    if (!ok_) failed_column = result.failed_column;
    return ok_;
  };
  if (attempt(Precision::kF32)) return;
  if (attempt(Precision::kF64)) {
    events_.push_back({SolveEvent::Kind::kDoublePrecision,
                       "the Gram matrix could be factored in double precision alone", share});
    return;
  }
  for (int tries = 1; tries < options.max_tries && share < 1; ++tries) {
    share = std::min(1.0, share * 2);
    if (!attempt(Precision::kF32)) continue;
    events_.push_back({SolveEvent::Kind::kDampingRaised,
                       "the Gram matrix needed a damping of " + Percent(share) + " (" +
                           std::to_string(tries) + " tries with less failed)",
                       share});
    return;
  }
  events_.push_back(Fallback("the Gram matrix is not positive definite (solve column " +
                                 std::to_string(failed_column) + ") up to a damping of " +
                                 Percent(share),
                             share));
}

void GptqFactor::SetDampedDiagonal(Backend& backend, Exec& exec) {
  std::vector<float> diagonal(static_cast<size_t>(in()));
  backend.Download(exec, statistics_.diagonal(), MutableViewOf(diagonal.data(), 1, in()));
  for (size_t k = 0; k < diagonal.size(); ++k) {
    const bool is_dead = dead()[static_cast<size_t>(order()[k])];
    diagonal[k] = is_dead ? 0.0f : diagonal[k] + static_cast<float>(damp_);
  }
  damped_diagonal_ = backend.Empty(DType::kF32, 1, in());
  backend.Upload(exec, ViewOf(diagonal.data(), 1, in()), damped_diagonal_);
  exec.stream.Synchronize();  // `diagonal` is read until then
}

GptqFactor PrepareGptq(Backend& backend, Exec& exec, InputStatistics statistics,
                       const GptqOptions& options) {
  GptqFactor factor(std::move(statistics));
  if (factor.statistics_.dead_columns()) {
    factor.events_.push_back(*factor.statistics_.dead_columns());
  }
  factor.Factor(backend, exec, options);
  factor.SetDampedDiagonal(backend, exec);
  return factor;
}

GptqFactor PrepareGptq(Backend& backend, Exec& exec, Tensor gram, const GptqOptions& options) {
  return PrepareGptq(
      backend, exec,
      InputStatistics(backend, exec, std::move(gram), options.act_order, "calibration statistics"),
      options);
}

SolveResult SolveGptq(Backend& backend, Exec& exec, const GptqFactor& factor, ConstMatrix target,
                      const QuantScheme& scheme) {
  return SolveGptq(backend, exec, factor, target, scheme, MinMax(backend, exec, target, scheme));
}

SolveResult SolveGptq(Backend& backend, Exec& exec, const GptqFactor& factor, ConstMatrix target,
                      const QuantScheme& scheme, const Grid& grid, int refine_sweeps) {
  Check(target.cols == factor.in(), "SolveGptq: target and statistics differ in their inputs");
  SolveResult result;
  result.events = factor.events();
  result.damp = factor.damp();
  const Tensor codes = backend.Empty(DType::kI8, target.rows, target.cols);
  const Tensor shifted =
      grid.offsets.empty() ? Tensor() : LessOffsets(backend, exec, target, scheme, grid);
  const ConstMatrix wanted = shifted.empty() ? target : ConstMatrix(shifted);
  const GptqProblem problem{wanted, factor.gram(), factor.order(),
                            scheme, grid.scales,   grid.zero_points};
  bool solved = false;
  if (factor.ok()) {
    const Tensor loss = backend.Empty(DType::kF32, 1, target.rows);
    backend.GptqSolve(exec, problem, codes, loss);
    solved = AllFinite(backend, exec, loss);
    if (!solved) {
      result.damp = 0;
      result.events.push_back(Fallback("the solve overflowed", 0));
    }
  }
  if (solved) {
    backend.RefineCodes(exec, problem, factor.damped_diagonal(), refine_sweeps, codes);
  } else {
    backend.RoundToGrid(exec, wanted, scheme, grid.scales, grid.zero_points, codes);
  }
  result.linear = DownloadLinear(backend, exec, scheme, grid, codes);
  result.offsets = DownloadOffsets(backend, exec, grid);
  if (solved) ClearDead(factor.dead(), result.offsets, result.linear);
  result.relative_error =
      RelativeError(backend, exec, target, result.linear, &factor.error_weights(), result.offsets);
  return result;
}

}  // namespace quantmill
