#include "quant/verify/weight_error.h"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "kernels/core/error.h"
#include "quant/verify/verify_artifact.h"

namespace quantmill {
namespace {

// Independent partial sums: the compiler can use vector registers without reordering a sum.
constexpr int64_t kLanes = 8;

RowSquares SquaresOf(const float* quantized, const float* weight, int64_t count) {
  std::array<double, kLanes> difference{};
  std::array<double, kLanes> squares{};
  const auto add = [&](int64_t lane, int64_t i) {
    const double w = weight[i];
    const double d = quantized[i] - w;
    difference[static_cast<size_t>(lane)] += d * d;
    squares[static_cast<size_t>(lane)] += w * w;
  };
  const int64_t whole = count - count % kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) add(lane, i + lane);
  }
  for (int64_t i = whole; i < count; ++i) add(i - whole, i);
  RowSquares sum;
  for (size_t lane = 0; lane < kLanes; ++lane) {
    sum.difference += difference[lane];
    sum.weight += squares[lane];
  }
  return sum;
}

}  // namespace

void SquaresOfRows(const QuantizedLinear& linear, ConstMatrix dense, int64_t begin,
                   std::span<RowSquares> rows) {
  Check(dense.rows == linear.out && dense.cols == linear.in, "WeightError: dense is [out, in]");
  const auto in = static_cast<size_t>(linear.in);
  std::vector<float> quantized(in);
  std::vector<float> weight(in);
  for (size_t i = 0; i < rows.size(); ++i) {
    const int64_t row = begin + static_cast<int64_t>(i);
    DequantizeRow(linear, row, quantized.data());
    WidenRow(dense, row, weight.data());
    rows[i] = SquaresOf(quantized.data(), weight.data(), linear.in);
  }
}

double RelativeError(std::span<const RowSquares> rows) {
  RowSquares sum;
  for (const RowSquares& row : rows) {
    sum.difference += row.difference;
    sum.weight += row.weight;
  }
  if (sum.weight == 0) {
    return sum.difference == 0 ? 0 : std::numeric_limits<double>::infinity();
  }
  return sum.difference / sum.weight;
}

double WeightError(const QuantizedLinear& linear, ConstMatrix dense, ThreadPool& pool) {
  CheckConsistent(linear);
  std::vector<RowSquares> rows(static_cast<size_t>(linear.out));
  pool.ParallelFor((linear.out + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int) {
    const int64_t begin = task * kRowsPerTask;
    const int64_t count = std::min(kRowsPerTask, linear.out - begin);
    SquaresOfRows(linear, dense, begin,
                  std::span(rows).subspan(static_cast<size_t>(begin), static_cast<size_t>(count)));
  });
  return RelativeError(rows);
}

double WeightError(ConstMatrix values, ConstMatrix dense) {
  Check(dense.rows == values.rows && dense.cols == values.cols, "WeightError: shapes differ");
  std::vector<RowSquares> rows(static_cast<size_t>(values.rows));
  std::vector<float> weight(static_cast<size_t>(values.cols));
  for (int64_t r = 0; r < values.rows; ++r) {
    WidenRow(dense, r, weight.data());
    rows[static_cast<size_t>(r)] = SquaresOf(values.Row<float>(r), weight.data(), values.cols);
  }
  return RelativeError(rows);
}

}  // namespace quantmill
