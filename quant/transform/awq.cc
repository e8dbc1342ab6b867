#include "quant/transform/awq.h"

#include <algorithm>
#include <cmath>

namespace quantmill {
namespace {

constexpr int kGridPoints = 20;

// The mean over the columns that a scale serves.
std::vector<double> MeanByScale(const FoldProblem& problem, const std::vector<double>& columns) {
  std::vector<double> sum(static_cast<size_t>(problem.scales));
  std::vector<double> count(sum.size());
  for (size_t i = 0; i < columns.size(); ++i) {
    const auto at = static_cast<size_t>(problem.scale_of[i]);
    sum[at] += columns[i];
    count[at] += 1;
  }
  for (size_t j = 0; j < sum.size(); ++j) sum[j] /= std::max(1.0, count[j]);
  return sum;
}

std::vector<double> Salience(const FoldProblem& problem) {
  const std::vector<double> squares(problem.mean_square.begin(), problem.mean_square.end());
  std::vector<double> salience = MeanByScale(problem, squares);
  for (double& x : salience) x = std::max(std::sqrt(x), 1e-6);
  return salience;
}

std::vector<double> WeightShare(const FoldProblem& problem) {
  const int64_t in = problem.in();
  const int64_t size = problem.scheme.GroupSizeFor(in);
  std::vector<double> share(static_cast<size_t>(in));
  for (int64_t o = 0; o < problem.weight.rows(); ++o) {
    const auto* row = problem.weight.Row<float>(o);
    for (int64_t begin = 0; begin < in; begin += size) {
      const int64_t end = std::min(in, begin + size);
      float largest = 1e-6f;
      for (int64_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(row[i]));
      for (int64_t i = begin; i < end; ++i) {
        share[static_cast<size_t>(i)] += static_cast<double>(std::abs(row[i]) / largest);
      }
    }
  }
  for (double& x : share) x /= static_cast<double>(std::max<int64_t>(1, problem.weight.rows()));
  return MeanByScale(problem, share);
}

}  // namespace

std::vector<std::vector<float>> AwqCandidates(const FoldProblem& problem) {
  const std::vector<double> salience = Salience(problem);
  const std::vector<double> share = WeightShare(problem);
  std::vector<std::vector<float>> candidates;
  for (const bool duo : {false, true}) {
    for (int point = 0; point < kGridPoints; ++point) {
      if (!duo && point == 0) continue;  // identity
      const double alpha = static_cast<double>(point) / (kGridPoints - 1);
      std::vector<float> scales;
      scales.reserve(salience.size());
      for (size_t j = 0; j < salience.size(); ++j) {
        const double weight = duo ? std::pow(share[j], 1 - alpha) + 1e-4 : 1.0;
        scales.push_back(static_cast<float>(std::pow(salience[j], alpha) / weight));
      }
      candidates.push_back(RoundScales(Normalized(std::move(scales))));
    }
  }
  return candidates;
}

}  // namespace quantmill
