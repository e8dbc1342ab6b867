#include "kernels/cpu/factor_f64.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/cpu_backend.h"

namespace quantmill::cpu {
namespace {

// Columns whose updates are applied together: the part of U that a row is updated with stays in L2.
constexpr int64_t kBlock = 64;

// sum of a[k] b[k], in eight chains: vector registers without reordering a sum.
double Dot(const double* a, const double* b, int64_t n) {
  double lanes[8] = {};
  int64_t k = 0;
  for (; k + 8 <= n; k += 8) {
    for (int64_t l = 0; l < 8; ++l) lanes[l] += a[k + l] * b[k + l];
  }
  for (; k < n; ++k) lanes[k % 8] += a[k] * b[k];
  return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) +
         ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

// H = U U^T from the last column up, in place in the upper triangle of u ([n, n], row-major):
// U[i, j] = (H[i, j] - U[i, > j] . U[j, > j]) / U[j, j], of which rows i <= j depend on row j
// alone.
int64_t Factor(ThreadPool& pool, int64_t n, double* u) {
  for (int64_t end = n; end > 0;) {
    const int64_t begin = std::max<int64_t>(0, end - kBlock);
    // The block's own rows one column after the other; the rows above in parallel, a row a task.
    for (int64_t j = end - 1; j >= begin; --j) {
      for (int64_t i = j; i >= begin; --i) {
        double* row = u + i * n;
        const double rest = row[j] - Dot(row + j + 1, u + j * n + j + 1, n - j - 1);
        if (i == j) {
          if (!(rest > 0) || !std::isfinite(rest)) return j;
          row[j] = std::sqrt(rest);
        } else {
          row[j] = rest / u[j * n + j];
        }
      }
    }
    pool.ParallelFor(begin, [&](int64_t i, int) {
      double* row = u + i * n;
      for (int64_t j = end - 1; j >= begin; --j) {
        row[j] = (row[j] - Dot(row + j + 1, u + j * n + j + 1, n - j - 1)) / u[j * n + j];
      }
    });
    end = begin;
  }
  return -1;
}

// R = U^-1, column by column, into the upper triangle of gram. columns: [threads, n], scratch.
void Invert(ThreadPool& pool, int64_t n, const double* u, Matrix columns, Matrix gram) {
  pool.ParallelFor(n, [&](int64_t task, int thread) {
    const int64_t j = n - 1 - task;  // the longest first
    auto* r = columns.Row<double>(thread);
    r[j] = 1 / u[j * n + j];
    for (int64_t i = j - 1; i >= 0; --i) {
      r[i] = -Dot(u + i * n + i + 1, r + i + 1, j - i) / u[i * n + i];
    }
    for (int64_t i = 0; i <= j; ++i) gram.Row<float>(i)[j] = static_cast<float>(r[i]);
  });
}

}  // namespace

FactorResult FactorInF64(Exec& exec, ConstMatrix diagonal, float damp, Matrix gram) {
  const int64_t n = gram.rows;
  ThreadPool& pool = PoolOf(exec);
  Workspace::Scope scope(exec.workspace);
  const Matrix square = scope.Take(DType::kF64, n, n);
  const Matrix columns = scope.Take(DType::kF64, pool.threads(), n);
  auto* u = square.Row<double>(0);
  for (int64_t i = 0; i < n; ++i) {
    const float* lower = gram.Row<float>(i);
    for (int64_t j = 0; j < i; ++j) u[j * n + i] = static_cast<double>(lower[j]);
    u[i * n + i] = static_cast<double>(diagonal.Row<float>(0)[i]) + static_cast<double>(damp);
  }
  const int64_t failed = Factor(pool, n, u);
  if (failed >= 0) return {false, failed};
  Invert(pool, n, u, columns, gram);
  return {true, -1};
}

}  // namespace quantmill::cpu
