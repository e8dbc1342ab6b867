// AddGram, AddCross and AddRange of the cuda backend. Products are the library's, on 16-bit
// activations by tensor cores with F32 sums.
#include <algorithm>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// Tokens that one product sums; the sums are added to the matrix in order.
constexpr int64_t kChunkTokens = 2048;
// Columns of the square that one product fills, down to the diagonal. A library product has no
// symmetric half: of n columns, n / (2 kPanel) + 1/2 panels' worth are computed twice, 6 % at
// 4,096.
constexpr int64_t kPanel = 512;

// gram += block, upper triangle alone. Square, at most kPanel.
__global__ void AddUpperKernel(View<const float> block, View<float> gram) {
  ForEachElement(gram.rows, gram.cols, [&](int64_t i, int64_t j) {
    if (i <= j) gram.Row(i)[j] += block.Row(i)[j];
  });
}

template <typename T>
__global__ void DifferenceKernel(View<const T> y, View<const T> x, View<T> out) {
  ForEachElement(out.rows, out.cols, [&](int64_t row, int64_t col) {
    out.Row(row)[col] = FromFloat<T>(ToFloat(y.Row(row)[col]) - ToFloat(x.Row(row)[col]));
  });
}

// A thread a column: neighbours read neighbours, row after row. Tokens are few beside columns where
// it matters (a chunk of activations), and the pass is bound by reading x.
template <typename T>
__global__ void RangeKernel(View<const T> x, View<float> range) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= x.cols) return;
  float low = range.Row(0)[i];
  float high = range.Row(1)[i];
  for (int64_t t = 0; t < x.rows; ++t) {
    const float value = ToFloat(x.Row(t)[i]);
    if (value < low || value != value) low = value;
    if (value > high || value != value) high = value;
  }
  range.Row(0)[i] = low;
  range.Row(1)[i] = high;
}

void AddGramChunk(Exec& exec, ConstMatrix x, Matrix gram) {
  for (int64_t first = 0; first < x.cols; first += kPanel) {
    const int64_t count = std::min(kPanel, x.cols - first);
    const ConstMatrix panel = x.Cols(first, count);
    const Matrix columns = gram.Cols(first, count);
    Gemm(exec, Transpose::kYes, x.Cols(0, first), Transpose::kNo, panel, 1, columns.Rows(0, first));
    Workspace::Scope scope(exec.workspace);
    const Matrix block = scope.Take(DType::kF32, count, count);
    Gemm(exec, Transpose::kYes, panel, Transpose::kNo, panel, 0, block);
    Launch(exec, AddUpperKernel, Elementwise(block.rows, block.cols), In<float>(block),
           Out<float>(columns.Rows(first, count)));
  }
}

}  // namespace

void CudaBackend::AddGram(Exec& exec, ConstMatrix x, Matrix gram) {
  CheckAddGram(x, gram);
  for (int64_t first = 0; first < x.rows; first += kChunkTokens) {
    AddGramChunk(exec, x.Rows(first, std::min(kChunkTokens, x.rows - first)), gram);
  }
}

void CudaBackend::AddCross(Exec& exec, ConstMatrix x, ConstMatrix y, Matrix cross) {
  CheckAddCross(x, y, cross);
  for (int64_t first = 0; first < x.rows; first += kChunkTokens) {
    const int64_t count = std::min(kChunkTokens, x.rows - first);
    const ConstMatrix rows = x.Rows(first, count);
    Workspace::Scope scope(exec.workspace);
    const Matrix difference = scope.Take(x.dtype, count, x.cols);
    WithFloatType(x.dtype, [&](auto type) {
      using T = decltype(type);
      Launch(exec, DifferenceKernel<T>, Elementwise(difference.rows, difference.cols),
             In<T>(y.Rows(first, count)), In<T>(rows), Out<T>(difference));
    });
    Gemm(exec, Transpose::kYes, rows, Transpose::kNo, difference, 1, cross);
  }
}

void CudaBackend::AddRange(Exec& exec, ConstMatrix x, Matrix range) {
  CheckAddRange(x, range);
  WithFloatType(x.dtype, [&](auto type) {
    using T = decltype(type);
    constexpr int kThreads = 64;
    Launch(exec, RangeKernel<T>, {(x.cols + kThreads - 1) / kThreads, 1, kThreads}, In<T>(x),
           Out<float>(range));
  });
}

}  // namespace quantmill::QUANTMILL_CUDA
