// PermuteGram, FactorGram, SolveGram and QuadraticForm of the cuda backend: gathers and transposes
// around library products.
#include <algorithm>
#include <cmath>

#include "kernels/core/permutation.h"
#include "kernels/cuda/blas.h"
#include "kernels/cuda/columns.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/staging.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// ---- transposes ----
// A block of 256 threads for each tile [32, 32] of a square; the tile passes through shared memory,
// in rows of 33 so that its columns lie in different banks, and both sides are read and written in
// whole lines.

constexpr int kTile = 32;
constexpr int kTileThreads = 256;

LaunchShape TilesOf(int64_t n) {
  const int64_t tiles = (n + kTile - 1) / kTile;
  return {tiles, tiles, kTileThreads, SharedBytes<float>(kTile * (kTile + 1))};
}

// visit(i, j, m[i, j]) for all elements of the block's tile, neighbours in a column being visited
// by neighbouring threads, after all of the tile has been read.
template <typename Visit>
__device__ void VisitColumnsOfTile(View<const float> m, const Visit& visit) {
  SharedMemory memory;
  const SharedArray<float> tile = memory.Take<float>(kTile * (kTile + 1));
  const int lane = static_cast<int>(threadIdx.x) % kTile;
  const int first = static_cast<int>(threadIdx.x) / kTile;
  constexpr int kStep = kTileThreads / kTile;
  const int64_t row = static_cast<int64_t>(blockIdx.y) * kTile;
  const int64_t col = static_cast<int64_t>(blockIdx.x) * kTile;
  for (int r = first; r < kTile; r += kStep) {
    if (row + r < m.rows && col + lane < m.cols) {
      tile[r * (kTile + 1) + lane] = m.Row(row + r)[col + lane];
    }
  }
  __syncthreads();
  for (int c = first; c < kTile; c += kStep) {
    if (row + lane < m.rows && col + c < m.cols) {
      const float x = tile[lane * (kTile + 1) + c];
      visit(row + lane, col + c, x);
    }
  }
}

// The strict lower triangle becomes the upper one, transposed.
__global__ void CompleteKernel(View<float> gram) {
  if (blockIdx.y > blockIdx.x) return;
  VisitColumnsOfTile({gram.data, gram.rows, gram.cols, gram.stride},
                     [&](int64_t i, int64_t j, float x) {
                       if (i < j) gram.Row(j)[i] = x;
                     });
}

// The index of a row or column with the order of both reversed.
template <bool kReversed>
__device__ int64_t Placed(int64_t i, int64_t n) {
  return kReversed ? n - 1 - i : i;
}

// One triangle of `to`, the other being left as it is: factor * the strict lower triangle of gram,
// transposed, with diagonal + damp. Transposed alone it is the upper one; reversed as well, the
// lower.
template <typename T, bool kReversed>
__global__ void TransposeLowerKernel(View<const float> gram, const float* diagonal, T factor,
                                     T damp, View<T> to) {
  if (blockIdx.x > blockIdx.y) return;
  const int64_t n = gram.rows;
  VisitColumnsOfTile(gram, [&](int64_t i, int64_t j, float x) {
    T* row = to.Row(Placed<kReversed>(j, n));
    const int64_t at = Placed<kReversed>(i, n);
    if (j < i) row[at] = factor * static_cast<T>(x);
    if (j == i) row[at] = static_cast<T>(diagonal[i]) + damp;
  });
}

// ---- FactorGram ----

// The upper triangle of gram from the lower one of `inverse`, reversed.
template <typename T>
__global__ void ReversedUpperKernel(View<const T> inverse, View<float> gram) {
  const int64_t n = gram.rows;
  ForEachElement(n, n, [&](int64_t i, int64_t j) {
    if (i <= j) gram.Row(i)[j] = static_cast<float>(inverse.Row(n - 1 - i)[n - 1 - j]);
  });
}

// *first: the first of the leading `count` diagonal elements that is NaN or infinite, or count. One
// block.
template <typename T>
__global__ void FirstNotFiniteKernel(View<const T> m, int32_t count, int32_t* first) {
  SharedMemory memory;
  const SharedArray<int32_t> scratch = memory.Take<int32_t>(kWarp);
  int32_t found = count;
  for (auto i = static_cast<int32_t>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    if (!std::isfinite(m.Row(i)[i])) found = std::min(found, i);
  }
  found = BlockReduce(found, count, Min(), scratch);
  if (threadIdx.x == 0) *first = found;
}

// The first column of the lower factor whose pivot was not positive and finite, or -1. `failed`:
// the library's answer, which may take infinities and NaN for pivots.
template <typename T>
int64_t FirstBadPivot(Exec& exec, ConstMatrix factor, int64_t failed) {
  const int64_t count = failed < 0 ? factor.rows : failed;
  Workspace::Scope scope(exec.workspace);
  const Matrix found = scope.Take(DType::kI32, 1, 1);
  Launch(exec, FirstNotFiniteKernel<T>, {1, 1, 256, SharedBytes<int32_t>(kWarp)}, In<T>(factor),
         count, found.Row<int32_t>(0));
  int32_t first = 0;
  StreamOf(exec).CopyToHost(&first, sizeof(first), found.data, sizeof(first), sizeof(first), 1);
  return first < count ? first : failed;
}

// H = U U^T from the last column up is H' = L L^T from the first one down, H' being H with rows and
// columns reversed; and U^-1 is L^-1 reversed.
template <typename T>
FactorResult Factor(Exec& exec, ConstMatrix diagonal, float damp, Matrix gram) {
  const int64_t n = gram.rows;
  Workspace::Scope scope(exec.workspace);
  const Matrix reversed = scope.Take(DTypeOf<T>::kValue, n, n);
  Launch(exec, TransposeLowerKernel<T, true>, TilesOf(n), In<float>(gram), diagonal.Row<float>(0),
         T{1}, damp, Out<T>(reversed));
  const int64_t failed = FirstBadPivot<T>(exec, reversed, CholeskyLower(exec, reversed));
  if (failed >= 0) return {false, n - 1 - failed};
  InvertLower(exec, reversed);
  Launch(exec, ReversedUpperKernel<T>, Elementwise(n, n), In<T>(reversed), Out<float>(gram));
  return {true, -1};
}

// ---- QuadraticForm ----

// result[o] = delta[o] . y[o], summed in F64: y's own errors are not added to. A block a row.
__global__ void RowDotKernel(View<const float> delta, View<const float> y, float* result) {
  SharedMemory memory;
  const SharedArray<double> scratch = memory.Take<double>(kWarp);
  const int64_t row = blockIdx.x;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < delta.cols; i += blockDim.x) {
    sum += static_cast<double>(delta.Row(row)[i]) * static_cast<double>(y.Row(row)[i]);
  }
  sum = BlockReduce(sum, 0.0, Sum(), scratch);
  if (threadIdx.x == 0) result[row] = static_cast<float>(sum);
}

// Rows of delta whose products are in memory at a time.
constexpr int64_t kFormRows = 8192;

}  // namespace

void CudaBackend::PermuteGram(Exec& exec, std::span<const int32_t> order, Matrix gram) {
  CheckPermuteGram(order, gram);
  const int64_t n = gram.rows;
  Launch(exec, CompleteKernel, TilesOf(n), Out<float>(gram));
  if (std::is_sorted(order.begin(), order.end())) return;
  Workspace::Scope scope(exec.workspace);
  const int32_t* on_device = OnDevice(exec, scope, order);
  const Matrix rows = scope.Take(DType::kF32, n, n);
  GatherRows(exec, gram, order, rows);
  GatherColumns(exec, rows, on_device, gram);
}

FactorResult CudaBackend::FactorGram(Exec& exec, ConstMatrix diagonal, float damp,
                                     Precision precision, Matrix gram) {
  CheckFactorGram(diagonal, gram);
  const int64_t n = gram.rows;
  if (n == 0) return {true, -1};
  return precision == Precision::kF64 ? Factor<double>(exec, diagonal, damp, gram)
                                      : Factor<float>(exec, diagonal, damp, gram);
}

void CudaBackend::SolveGram(Exec& exec, ConstMatrix factor, std::span<const int32_t> order,
                            Matrix x) {
  CheckSolveGram(factor, order, x);
  const int64_t n = factor.rows;
  if (x.size() == 0) return;
  Workspace::Scope scope(exec.workspace);
  const int32_t* on_device = OnDevice(exec, scope, order);
  const Matrix first = scope.Take(DType::kF32, x.rows, n);
  const Matrix second = scope.Take(DType::kF32, x.rows, n);
  GatherColumns(exec, x, on_device, first);
  MultiplyUpper(exec, first, Transpose::kYes, factor, second);
  MultiplyUpper(exec, second, Transpose::kNo, factor, first);
  ScatterColumns(exec, first, on_device, x);
}

// d G d^T = d . y with y_i = G_ii d_i + 2 sum_{j < i} G_ij d_j: a product with an upper triangle,
// which a library makes in half the time of one with all of G.
void CudaBackend::QuadraticForm(Exec& exec, ConstMatrix delta, ConstMatrix gram,
                                ConstMatrix diagonal, Matrix result) {
  CheckQuadraticForm(delta, gram, diagonal, result);
  const int64_t n = delta.cols;
  Workspace::Scope scope(exec.workspace);
  const Matrix upper = scope.Take(DType::kF32, n, n);
  Launch(exec, TransposeLowerKernel<float, false>, TilesOf(n), In<float>(gram),
         In<float>(diagonal).data, 2.0f, 0.0f, Out<float>(upper));
  const Matrix products = scope.Take(DType::kF32, std::min(kFormRows, delta.rows), n);
  for (int64_t first = 0; first < delta.rows; first += kFormRows) {
    const ConstMatrix rows = delta.Rows(first, std::min(kFormRows, delta.rows - first));
    const Matrix y = products.Rows(0, rows.rows);
    MultiplyUpper(exec, rows, Transpose::kNo, upper, y);
    Launch(exec, RowDotKernel, {rows.rows, 1, ThreadsFor(rows.cols), SharedBytes<double>(kWarp)},
           In<float>(rows), In<float>(y), Out<float>(result).data + first);
  }
}

}  // namespace quantmill::QUANTMILL_CUDA
