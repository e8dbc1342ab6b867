#include "quant/transform/fold_problem.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace quantmill {

std::vector<int64_t> SampleRows(int64_t rows, int64_t limit) {
  const int64_t count = std::min(rows, limit);
  std::vector<int64_t> sample;
  sample.reserve(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) sample.push_back(i * rows / count);
  return sample;
}

std::vector<float> RoundScales(std::vector<float> scales) {
  for (float& s : scales) s = ToFloat(ToBF16(s));
  return scales;
}

std::vector<float> Normalized(std::vector<float> scales) {
  if (scales.empty()) return scales;
  const auto [smallest, largest] = std::minmax_element(scales.begin(), scales.end());
  const float middle = std::sqrt(*smallest) * std::sqrt(*largest);
  for (float& s : scales) s = std::clamp(s / middle, 1e-4f, 1e4f);
  return scales;
}

std::vector<float> ColumnScales(const FoldProblem& problem, const std::vector<float>& scales) {
  std::vector<float> columns;
  columns.reserve(problem.scale_of.size());
  for (const int32_t at : problem.scale_of) columns.push_back(scales[static_cast<size_t>(at)]);
  return columns;
}

}  // namespace quantmill
