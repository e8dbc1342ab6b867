// kernels/cuda/blas.h in plain loops, summed in F64.
#include "kernels/cuda/blas.h"

#include <cmath>
#include <vector>

#include "kernels/cuda/runtime.h"
#include "tests/support/cuda_host/device_memory.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// op(m) as rows of F64.
std::vector<double> Widened(Transpose transpose, ConstMatrix m) {
  std::vector<double> wide(static_cast<size_t>(m.size()));
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) {
      const int64_t at = transpose == Transpose::kNo ? r * m.cols + c : c * m.rows + r;
      wide[static_cast<size_t>(at)] =
          m.dtype == DType::kF32 ? double{m.Row<float>(r)[c]} : double{ToFloat(m.Row<BF16>(r)[c])};
    }
  }
  return wide;
}

template <typename T>
int64_t Cholesky(Matrix a) {
  for (int64_t j = 0; j < a.rows; ++j) {
    const T* row = a.Row<T>(j);
    double pivot = row[j];
    for (int64_t k = 0; k < j; ++k) pivot -= double{row[k]} * double{row[k]};
    if (!(pivot > 0) || !std::isfinite(pivot)) return j;
    a.Row<T>(j)[j] = static_cast<T>(std::sqrt(pivot));
    for (int64_t i = j + 1; i < a.rows; ++i) {
      double sum = a.Row<T>(i)[j];
      for (int64_t k = 0; k < j; ++k) sum -= double{a.Row<T>(i)[k]} * double{row[k]};
      a.Row<T>(i)[j] = static_cast<T>(sum / double{row[j]});
    }
  }
  return -1;
}

template <typename T>
void Invert(Matrix a) {
  const auto n = static_cast<size_t>(a.rows);
  std::vector<double> inverse(n * n);
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = j; i < n; ++i) {
      const T* row = a.Row<T>(static_cast<int64_t>(i));
      double sum = i == j ? 1 : 0;
      for (size_t k = j; k < i; ++k) sum -= double{row[k]} * inverse[k * n + j];
      inverse[i * n + j] = sum / double{row[i]};
    }
  }
  for (size_t i = 0; i < n; ++i) {
    T* row = a.Row<T>(static_cast<int64_t>(i));
    for (size_t j = 0; j <= i; ++j) row[j] = static_cast<T>(inverse[i * n + j]);
  }
}

}  // namespace

void Gemm(Exec& exec, Transpose transpose_a, ConstMatrix a, Transpose transpose_b, ConstMatrix b,
          float beta, Matrix c) {
  const DeviceAccess access;
  StreamOf(exec).Settle();
  Check(a.dtype == b.dtype && (a.dtype == DType::kF32 || a.dtype == DType::kBF16),
        "Gemm: a and b are F32, or both BF16");
  const int64_t depth = transpose_a == Transpose::kNo ? a.cols : a.rows;
  Check(c.rows == (transpose_a == Transpose::kNo ? a.rows : a.cols) &&
            c.cols == (transpose_b == Transpose::kNo ? b.cols : b.rows) &&
            depth == (transpose_b == Transpose::kNo ? b.rows : b.cols),
        "Gemm: shapes differ");
  const std::vector<double> left = Widened(transpose_a, a);
  const std::vector<double> right = Widened(transpose_b, b);
  std::vector<double> sums(static_cast<size_t>(c.cols));
  for (int64_t i = 0; i < c.rows; ++i) {
    std::fill(sums.begin(), sums.end(), 0);
    for (int64_t k = 0; k < depth; ++k) {
      const double x = left[static_cast<size_t>(i * depth + k)];
      const double* from = right.data() + k * c.cols;
      for (size_t j = 0; j < sums.size(); ++j) sums[j] += x * from[j];
    }
    float* to = c.Row<float>(i);
    for (size_t j = 0; j < sums.size(); ++j) {
      to[j] = static_cast<float>(beta == 0 ? sums[j] : sums[j] + double{beta} * double{to[j]});
    }
  }
}

int64_t CholeskyLower(Exec& exec, Matrix a) {
  const DeviceAccess access;
  StreamOf(exec).Settle();
  Check(a.rows == a.cols, "CholeskyLower: a is [n, n]");
  return a.dtype == DType::kF64 ? Cholesky<double>(a) : Cholesky<float>(a);
}

void InvertLower(Exec& exec, Matrix a) {
  const DeviceAccess access;
  StreamOf(exec).Settle();
  a.dtype == DType::kF64 ? Invert<double>(a) : Invert<float>(a);
}

void MultiplyUpper(Exec& exec, ConstMatrix x, Transpose transpose, ConstMatrix factor, Matrix y) {
  const DeviceAccess access;
  StreamOf(exec).Settle();
  const auto n = static_cast<size_t>(x.cols);
  std::vector<double> sums(n);
  for (int64_t row = 0; row < x.rows; ++row) {
    const float* from = x.Row<float>(row);
    std::fill(sums.begin(), sums.end(), 0);
    for (size_t k = 0; k < n; ++k) {
      const float* r = factor.Row<float>(static_cast<int64_t>(k));
      if (transpose == Transpose::kNo) {
        for (size_t j = k; j < n; ++j) sums[j] += double{from[k]} * double{r[j]};
      } else {
        for (size_t j = k; j < n; ++j) sums[k] += double{from[j]} * double{r[j]};
      }
    }
    float* to = y.Row<float>(row);
    for (size_t j = 0; j < n; ++j) to[j] = static_cast<float>(sums[j]);
  }
}

}  // namespace quantmill::QUANTMILL_CUDA
