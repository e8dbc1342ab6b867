// SolveGram of the cpu backend: two triangular products, a panel of the factor at a time, through
// the matrix product.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/solve_kernels.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {
namespace {

// Rows of the factor copied at a time.
constexpr int64_t kPanel = 256;

// Rows [begin, begin + panel.rows) of R, whose lower triangle holds something else.
void CopyUpper(ConstMatrix factor, int64_t begin, Matrix panel) {
  for (int64_t k = 0; k < panel.rows; ++k) {
    auto* row = panel.Row<float>(k);
    std::fill_n(row, begin + k, 0.0f);
    std::copy_n(factor.Row<float>(begin + k) + begin + k, factor.cols - begin - k, row + begin + k);
  }
}

// The same rows of R^T.
void CopyTransposed(const SolveKernels& kernels, ConstMatrix factor, int64_t begin, Matrix panel) {
  const int64_t cols = begin + panel.rows;  // of R above and at the diagonal
  kernels.transpose(factor.Row<float>(0) + begin, factor.stride, cols, panel.rows,
                    panel.Row<float>(0), panel.stride);
  for (int64_t k = 0; k < panel.rows; ++k) {
    std::fill_n(panel.Row<float>(k) + begin + k + 1, panel.cols - begin - k - 1, 0.0f);
  }
}

void PermuteColumns(std::span<const int32_t> order, bool back, ConstMatrix from, Matrix to,
                    ThreadPool& pool) {
  pool.ParallelFor(from.rows, [&](int64_t r, int) {
    const auto* source = from.Row<float>(r);
    auto* target = to.Row<float>(r);
    for (size_t k = 0; k < order.size(); ++k) {
      const auto original = static_cast<size_t>(order[k]);
      back ? target[original] = source[k] : target[k] = source[original];
    }
  });
}

}  // namespace

void CpuBackend::SolveGram(Exec& exec, ConstMatrix factor, std::span<const int32_t> order,
                           Matrix x) {
  CheckSolveGram(factor, order, x);
  const int64_t n = factor.rows;
  if (x.size() == 0) return;
  ThreadPool& pool = PoolOf(exec);
  Workspace::Scope scope(exec.workspace);
  const Matrix first = scope.Take(DType::kF32, x.rows, n);
  const Matrix second = scope.Take(DType::kF32, x.rows, n);
  const Matrix panel = scope.Take(DType::kF32, std::min(kPanel, n), n);
  PermuteColumns(order, /*back=*/false, x, first, pool);
  const auto multiply = [&](ConstMatrix from, Matrix to, const auto& copy) {
    for (int64_t begin = 0; begin < n; begin += kPanel) {
      const int64_t rows = std::min(kPanel, n - begin);
      copy(begin, panel.Rows(0, rows));
      const auto packed = PackDense(exec, panel.Rows(0, rows), Compute::kBF16x3);
      MatMul(exec, from, *packed, {}, MatMulMode::kStore, to.Cols(begin, rows));
    }
  };
  multiply(first, second, [&](int64_t begin, Matrix m) { CopyUpper(factor, begin, m); });
  multiply(second, first, [&](int64_t begin, Matrix m) {
    CopyTransposed(SelectSolveKernels(isa_), factor, begin, m);
  });
  PermuteColumns(order, /*back=*/true, first, x, pool);
}

}  // namespace quantmill::cpu
