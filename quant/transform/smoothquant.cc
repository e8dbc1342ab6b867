#include "quant/transform/smoothquant.h"

#include <algorithm>
#include <cmath>
#include <iterator>

namespace quantmill {
namespace {

constexpr int kGridSteps = 20;
constexpr float kSmallest = 1e-5f;

}  // namespace

std::vector<float> SmoothingScales(const FoldProblem& problem, double alpha) {
  std::vector<float> inputs(static_cast<size_t>(problem.scales), kSmallest);
  std::vector<float> weights(inputs);
  for (size_t i = 0; i < problem.scale_of.size(); ++i) {
    float& x = inputs[static_cast<size_t>(problem.scale_of[i])];
    x = std::max(x, problem.absmax[i]);
  }
  for (int64_t o = 0; o < problem.weight.rows(); ++o) {
    const auto* row = problem.weight.Row<float>(o);
    for (size_t i = 0; i < problem.scale_of.size(); ++i) {
      float& w = weights[static_cast<size_t>(problem.scale_of[i])];
      w = std::max(w, std::abs(row[i]));
    }
  }
  std::vector<float> scales;
  scales.reserve(inputs.size());
  for (size_t j = 0; j < inputs.size(); ++j) {
    scales.push_back(static_cast<float>(std::pow(static_cast<double>(inputs[j]), alpha) /
                                        std::pow(static_cast<double>(weights[j]), 1 - alpha)));
  }
  return RoundScales(Normalized(std::move(scales)));
}

std::vector<std::vector<float>> SmoothingCandidates(const FoldProblem& problem) {
  std::vector<std::vector<float>> candidates;
  for (int step = 0; step <= kGridSteps; ++step) {
    candidates.push_back(SmoothingScales(problem, static_cast<double>(step) / kGridSteps));
  }
  return candidates;
}

OutlierChannels FindOutliers(const std::vector<float>& absmax) {
  OutlierChannels outliers;
  if (absmax.empty()) return outliers;
  std::vector<float> sorted = absmax;
  const auto middle = std::next(sorted.begin(), std::ssize(sorted) / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  const auto median = static_cast<double>(*middle);
  const auto largest = std::max_element(absmax.begin(), absmax.end());
  outliers.largest = std::distance(absmax.begin(), largest);
  if (median == 0) return outliers;
  outliers.ratio = static_cast<double>(*largest) / median;
  outliers.count = std::count_if(absmax.begin(), absmax.end(), [&](float x) {
    return static_cast<double>(x) > kOutlierRatio * median;
  });
  return outliers;
}

}  // namespace quantmill
