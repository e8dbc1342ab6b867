#include "quant/runtime/divergence.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Two-sided 95 % quantile of Student's t: a table for few degrees of freedom, then the expansion
// of Abramowitz and Stegun 26.7.5, good to 3e-3 from 10 on.
double StudentT95(int64_t degrees) {
  constexpr std::array<double, 10> kTable = {12.706, 4.303, 3.182, 2.776, 2.571,
                                             2.447,  2.365, 2.306, 2.262, 2.228};
  if (degrees <= static_cast<int64_t>(kTable.size())) {
    return kTable[static_cast<size_t>(degrees - 1)];
  }
  constexpr double z = 1.959964;
  const auto n = static_cast<double>(degrees);
  return z + (z * z * z + z) / (4 * n) +
         (5 * std::pow(z, 5) + 16 * z * z * z + 3 * z) / (96 * n * n);
}

}  // namespace

Interval IntervalOverWindows(std::span<const double> window_means) {
  Interval interval;
  interval.windows = static_cast<int64_t>(window_means.size());
  if (window_means.empty()) return interval;
  const auto n = static_cast<double>(window_means.size());
  interval.mean = std::accumulate(window_means.begin(), window_means.end(), 0.0) / n;
  if (window_means.size() < 2) return interval;
  double squares = 0;
  for (const double x : window_means) squares += (x - interval.mean) * (x - interval.mean);
  interval.half_width =
      StudentT95(interval.windows - 1) * std::sqrt(squares / (n - 1)) / std::sqrt(n);
  return interval;
}

void ScoreAccumulator::AddWindow(std::span<const TokenScore> scores) {
  if (scores.empty()) return;
  double sum = 0;
  for (const TokenScore& score : scores) sum -= score.log_prob;
  window_means_.push_back(sum / static_cast<double>(scores.size()));
  sum_ += sum;
  tokens_ += static_cast<int64_t>(scores.size());
}

PerplexityResult ScoreAccumulator::Result() const {
  PerplexityResult result;
  result.tokens = tokens_;
  if (tokens_ == 0) return result;
  const double mean = sum_ / static_cast<double>(tokens_);
  const double half = IntervalOverWindows(window_means_).half_width;
  result.perplexity = std::exp(mean);
  result.low = std::exp(mean - half);
  result.high = std::exp(mean + half);
  return result;
}

void DivergenceAccumulator::AddWindow(std::span<const TokenComparison> scores,
                                      std::span<const int32_t> targets) {
  Check(scores.size() == targets.size(), "DivergenceAccumulator: one target for each score");
  if (scores.empty()) return;
  double kl = 0;
  double delta = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const TokenComparison& s = scores[i];
    kl += s.kl;
    delta += s.reference.log_prob - s.test.log_prob;
    kl_.push_back(static_cast<float>(s.kl));
    same_top1_ += s.reference.top1 == s.test.top1 ? 1 : 0;
    flips_ += (s.reference.top1 == targets[i]) != (s.test.top1 == targets[i]) ? 1 : 0;
  }
  const auto n = static_cast<double>(scores.size());
  window_kl_.push_back(kl / n);
  window_delta_.push_back(delta / n);
  kl_sum_ += kl;
  delta_sum_ += delta;
}

DivergenceResult DivergenceAccumulator::Result() const {
  DivergenceResult result;
  if (kl_.empty()) return result;
  const auto n = static_cast<double>(kl_.size());
  result.kl_mean = kl_sum_ / n;
  result.kl_ci95 = IntervalOverWindows(window_kl_).half_width;
  std::vector<float> sorted = kl_;
  const auto rank = static_cast<size_t>(std::ceil(0.99 * n)) - 1;
  std::nth_element(sorted.begin(), sorted.begin() + static_cast<std::ptrdiff_t>(rank),
                   sorted.end());
  result.kl_p99 = sorted[rank];
  result.kl_max = *std::max_element(kl_.begin(), kl_.end());
  result.top1_agreement = static_cast<double>(same_top1_) / n;
  result.flips = static_cast<double>(flips_) / n;
  result.delta_nll = delta_sum_ / n;
  result.delta_nll_ci95 = IntervalOverWindows(window_delta_).half_width;
  return result;
}

}  // namespace quantmill
