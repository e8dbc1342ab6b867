#include "quant/solve/solver.h"

#include <algorithm>
#include <cmath>
#include <optional>

namespace quantmill {
namespace {

// Rows that are measured at a time: enough for all cores (a pass over H serves 64 to 128 rows), few
// enough that the copies stay small beside H.
int64_t ChunkRows(int64_t in) { return in < 4096 ? 1024 : 512; }

// delta = dequantized + offset - weight, of row `o`.
void FillDelta(const QuantizedLinear& linear, std::span<const float> offsets, int64_t o,
               const float* weight, float* delta) {
  DequantizeRow(linear, o, delta);
  if (!offsets.empty()) {
    const int64_t size = linear.scheme.GroupSizeFor(linear.in);
    const float* row = &offsets[static_cast<size_t>(o * linear.groups())];
    for (int64_t i = 0; i < linear.in; ++i) delta[i] += row[i / size];
  }
  for (int64_t i = 0; i < linear.in; ++i) delta[i] -= weight[i];
}

double SumOfSquares(const float* x, int64_t n) {
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return sum;
}

// sum over rows of x H x^T for chunks of rows. Buffers are kept from chunk to chunk.
class Weigher {
 public:
  Weigher(Backend& backend, Exec& exec, const ErrorWeights& weights, int64_t rows)
      : backend_(backend),
        exec_(exec),
        weights_(weights),
        in_(static_cast<int64_t>(weights.order.size())),
        rows_(HostTensor(DType::kF32, rows, in_)),
        device_(backend.Empty(DType::kF32, rows, in_)),
        forms_(backend.Empty(DType::kF32, 1, rows)),
        sums_(static_cast<size_t>(rows)) {
    for (size_t i = 0; i < weights.dead.size(); ++i) {
      if (weights.dead[i]) dead_.push_back(i);
    }
  }

  // Row r of the chunk, in original column order. Dead columns of `x` become 0.
  void SetRow(int64_t r, float* x) {
    for (const size_t i : dead_) x[i] = 0;
    auto* row = rows_.Row<float>(r);
    const int32_t* order = weights_.order.data();
    for (int64_t k = 0; k < in_; ++k) row[k] = x[order[k]];
  }

  double Sum(int64_t rows) {
    const Matrix device = device_.view().Rows(0, rows);
    const Matrix forms = forms_.view().Cols(0, rows);
    backend_.Upload(exec_, rows_.view().Rows(0, rows), device);
    backend_.QuadraticForm(exec_, device, weights_.gram, weights_.diagonal, forms);
    backend_.Download(exec_, forms, MutableViewOf(sums_.data(), 1, rows));
    double sum = 0;
    for (int64_t r = 0; r < rows; ++r) sum += static_cast<double>(sums_[static_cast<size_t>(r)]);
    return sum;
  }

 private:
  Backend& backend_;
  Exec& exec_;
  const ErrorWeights& weights_;
  const int64_t in_;
  Tensor rows_;    // host, columns in the order of H
  Tensor device_;  // the same in the backend's memory
  Tensor forms_;
  std::vector<float> sums_;
  std::vector<size_t> dead_;
};

}  // namespace

Tensor LessOffsets(Backend& backend, Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                   const Grid& grid) {
  const std::vector<float> offsets = DownloadOffsets(backend, exec, grid);
  const int64_t size = scheme.GroupSizeFor(weight.cols);
  const int64_t groups = scheme.GroupsFor(weight.cols);
  Tensor result = backend.Empty(DType::kF32, weight.rows, weight.cols);
  const Tensor row = HostTensor(DType::kF32, 1, weight.cols);
  auto* x = row.Row<float>(0);
  for (int64_t o = 0; o < weight.rows; ++o) {
    backend.Download(exec, weight.Rows(o, 1), row);
    for (int64_t i = 0; i < weight.cols; ++i) {
      x[i] -= offsets[static_cast<size_t>(o * groups + i / size)];
    }
    backend.Upload(exec, row, result.view().Rows(o, 1));
    exec.stream.Synchronize();  // `row` is read until then
  }
  return result;
}

std::vector<float> DownloadOffsets(Backend& backend, Exec& exec, const Grid& grid) {
  if (grid.offsets.empty()) return {};
  const int64_t rows = grid.offsets.rows();
  const int64_t groups = grid.offsets.cols();
  std::vector<float> offsets(static_cast<size_t>(rows * groups));
  backend.Download(exec, grid.offsets, MutableViewOf(offsets.data(), rows, groups));
  return offsets;
}

QuantizedLinear DownloadLinear(Backend& backend, Exec& exec, const QuantScheme& scheme,
                               const Grid& grid, ConstMatrix codes) {
  QuantizedLinear linear;
  linear.scheme = scheme;
  linear.out = codes.rows;
  linear.in = codes.cols;
  linear.global_scale = grid.global_scale;
  const int64_t groups = linear.groups();
  linear.codes.resize(static_cast<size_t>(codes.size()));
  linear.scales.resize(static_cast<size_t>(codes.rows * groups));
  backend.Download(exec, codes, MutableViewOf(linear.codes.data(), codes.rows, codes.cols));
  backend.Download(exec, grid.scales, MutableViewOf(linear.scales.data(), codes.rows, groups));
  if (scheme.has_global_scale()) {
    // The product is within a rounding of the stored scale, which is thereby found again.
    for (float& scale : linear.scales) {
      scale = RoundTo(scheme.scale_dtype, scale * grid.global_scale);
    }
  }
  if (!scheme.symmetric) {
    linear.zero_points.resize(linear.scales.size());
    backend.Download(exec, grid.zero_points,
                     MutableViewOf(linear.zero_points.data(), codes.rows, groups));
  }
  CheckConsistent(linear);
  return linear;
}

double RelativeError(Backend& backend, Exec& exec, ConstMatrix weight,
                     const QuantizedLinear& linear, const ErrorWeights* weights,
                     std::span<const float> offsets) {
  const int64_t step = std::min(ChunkRows(weight.cols), weight.rows);
  const Tensor chunk = HostTensor(DType::kF32, step, weight.cols);
  std::optional<Weigher> weigher;
  if (weights != nullptr) weigher.emplace(backend, exec, *weights, step);
  std::vector<float> delta(static_cast<size_t>(weight.cols));
  double error = 0;
  double whole = 0;
  for (int64_t first = 0; first < weight.rows; first += step) {
    const int64_t rows = std::min(step, weight.rows - first);
    backend.Download(exec, weight.Rows(first, rows), chunk.view().Rows(0, rows));
    for (int64_t r = 0; r < rows; ++r) {
      FillDelta(linear, offsets, first + r, chunk.Row<float>(r), delta.data());
      if (weigher) {
        weigher->SetRow(r, delta.data());
      } else {
        error += SumOfSquares(delta.data(), weight.cols);
        whole += SumOfSquares(chunk.Row<float>(r), weight.cols);
      }
    }
    if (!weigher) continue;
    error += weigher->Sum(rows);
    for (int64_t r = 0; r < rows; ++r) weigher->SetRow(r, chunk.Row<float>(r));
    whole += weigher->Sum(rows);
  }
  return error == 0 ? 0 : error / whole;
}

}  // namespace quantmill
