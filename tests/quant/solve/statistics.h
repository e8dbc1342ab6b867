// Calibration statistics and error measures for the solver tests.
#ifndef QUANTMILL_TESTS_QUANT_SOLVE_STATISTICS_H_
#define QUANTMILL_TESTS_QUANT_SOLVE_STATISTICS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels/core/matrix.h"
#include "kernels/core/scheme.h"
#include "tests/support/random.h"

namespace quantmill::test {

// X^T X over `tokens` activations whose neighbouring inputs are correlated (`correlation` from one
// to the next) and whose loudness varies; the upper triangle only, as AddGram leaves it (0 below).
inline Tensor CorrelatedGram(Random& random, int64_t in, int64_t tokens, double correlation) {
  std::vector<double> loudness(static_cast<size_t>(in));
  for (double& x : loudness) x = std::exp(0.7 * random.Normal());
  std::vector<std::vector<double>> x(static_cast<size_t>(tokens));
  for (auto& row : x) {
    double value = random.Normal();
    for (const double loud : loudness) {
      value = correlation * value + std::sqrt(1 - correlation * correlation) * random.Normal();
      row.push_back(value * loud);
    }
  }
  Tensor gram = HostTensor(DType::kF32, in, in);
  Fill(gram, 0);
  for (int64_t i = 0; i < in; ++i) {
    for (int64_t j = i; j < in; ++j) {
      double sum = 0;
      for (const auto& row : x) sum += row[static_cast<size_t>(i)] * row[static_cast<size_t>(j)];
      gram.Row<float>(i)[j] = static_cast<float>(sum);
    }
  }
  return gram;
}

// tr(D H D^T), H from the upper triangle, plus damp on its diagonal. In double.
inline double Weighted(ConstMatrix gram, const std::vector<std::vector<double>>& d,
                       double damp = 0) {
  double sum = 0;
  for (const auto& row : d) {
    for (size_t i = 0; i < row.size(); ++i) {
      const auto* h = gram.Row<float>(static_cast<int64_t>(i));
      sum += row[i] * row[i] * (static_cast<double>(h[i]) + damp);
      for (size_t j = i + 1; j < row.size(); ++j)
        sum += 2 * row[i] * static_cast<double>(h[j]) * row[j];
    }
  }
  return sum;
}

inline std::vector<std::vector<double>> RowsOf(ConstMatrix m) {
  std::vector<std::vector<double>> rows;
  for (int64_t r = 0; r < m.rows; ++r) rows.emplace_back(m.Row<float>(r), m.Row<float>(r) + m.cols);
  return rows;
}

// What a reader of the artifact gets, minus the weight.
inline std::vector<std::vector<double>> ErrorOf(const QuantizedLinear& linear, ConstMatrix weight) {
  const Tensor read = HostTensor(DType::kF32, linear.out, linear.in);
  Dequantize(linear, read);
  std::vector<std::vector<double>> rows = RowsOf(read);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (size_t i = 0; i < rows[static_cast<size_t>(r)].size(); ++i) {
      rows[static_cast<size_t>(r)][i] -= static_cast<double>(weight.Row<float>(r)[i]);
    }
  }
  return rows;
}

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_QUANT_SOLVE_STATISTICS_H_
