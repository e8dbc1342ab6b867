// PermuteGram and FactorGram of the cpu backend: the passes over tiles.
#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "kernels/core/permutation.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/factor_f64.h"
#include "kernels/cpu/solve_kernels.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {

QUANTMILL_DEFINE_ISA_TABLE(FactorKernels, kFactorKernels)

namespace {

constexpr int64_t kTile = kSolveBlock;

int64_t TilesOf(int64_t n) { return (n + kTile - 1) / kTile; }

// Visits the tiles (row, col), row <= col, of a triangle, in parallel.
void ForEachTile(ThreadPool& pool, int64_t tiles,
                 const std::function<void(int64_t row, int64_t col, int thread)>& visit) {
  pool.ParallelFor(tiles * (tiles + 1) / 2, [&](int64_t index, int thread) {
    int64_t col = 0;
    while (index > col) {
      index -= col + 1;
      ++col;
    }
    visit(index, col, thread);
  });
}

// Copies one strict triangle of a square onto the other.
void Mirror(ThreadPool& pool, const SolveKernels& kernels, bool to_lower, Matrix gram) {
  const int64_t n = gram.rows;
  const int64_t ld = gram.stride;
  auto* x = gram.Row<float>(0);
  ForEachTile(pool, TilesOf(n), [&](int64_t row, int64_t col, int) {
    const int64_t i = row * kTile;
    const int64_t j = col * kTile;
    const int64_t rows = std::min(kTile, n - i);
    const int64_t cols = std::min(kTile, n - j);
    float* upper = x + i * ld + j;
    float* lower = x + j * ld + i;
    if (row < col) {
      to_lower ? kernels.transpose(upper, ld, rows, cols, lower, ld)
               : kernels.transpose(lower, ld, cols, rows, upper, ld);
      return;
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < r; ++c) {
        float& below = x[(i + r) * ld + i + c];
        float& above = x[(i + c) * ld + i + r];
        to_lower ? below = above : above = below;
      }
    }
  });
}

// x[i][j] = x[i][order[j]] for every row.
void PermuteColumns(Exec& exec, std::span<const int32_t> order, Matrix x) {
  ThreadPool& pool = PoolOf(exec);
  Workspace::Scope scope(exec.workspace);
  const Matrix rows = scope.Take(DType::kF32, pool.threads(), x.cols);
  pool.ParallelFor(x.rows, [&](int64_t i, int thread) {
    auto* row = x.Row<float>(i);
    auto* copy = rows.Row<float>(thread);
    std::copy_n(row, x.cols, copy);
    for (int64_t j = 0; j < x.cols; ++j) row[j] = copy[order[static_cast<size_t>(j)]];
  });
}

// x[i] = x[order[i]] for every row i, along the cycles of the permutation; a task moves a stripe of
// columns.
void PermuteRows(ThreadPool& pool, std::span<const int32_t> order, Matrix x) {
  constexpr int64_t kStripe = 256;
  std::vector<int32_t> starts;  // one row of each cycle longer than 1
  std::vector<bool> seen(order.size(), false);
  for (size_t i = 0; i < order.size(); ++i) {
    if (seen[i] || order[i] == static_cast<int32_t>(i)) continue;
    starts.push_back(static_cast<int32_t>(i));
    for (size_t k = i; !seen[k]; k = static_cast<size_t>(order[k])) seen[k] = true;
  }
  pool.ParallelFor((x.cols + kStripe - 1) / kStripe, [&](int64_t stripe, int) {
    const int64_t begin = stripe * kStripe;
    const size_t bytes = static_cast<size_t>(std::min(kStripe, x.cols - begin)) * sizeof(float);
    float held[kStripe];
    for (const int32_t start : starts) {
      std::memcpy(held, x.Row<float>(start) + begin, bytes);
      int32_t to = start;
      for (int32_t from = order[static_cast<size_t>(start)]; from != start;
           from = order[static_cast<size_t>(from)]) {
        std::memcpy(x.Row<float>(to) + begin, x.Row<float>(from) + begin, bytes);
        to = from;
      }
      std::memcpy(x.Row<float>(to) + begin, held, bytes);
    }
  });
}

// The passes of FactorGram over the blocks of one matrix.
class Factorizer {
 public:
  Factorizer(Exec& exec, const FactorKernels& kernels, Matrix gram)
      : pool_(PoolOf(exec)),
        kernels_(kernels),
        n_(gram.rows),
        stride_(gram.stride),
        gram_(gram.Row<float>(0)),
        scope_(exec.workspace),
        triangle_(scope_.Take(DType::kF32, 1, kernels.triangle_floats).Row<float>(0)),
        panel_(scope_.Take(DType::kF32, 1, kernels.panel_floats(n_)).Row<float>(0)),
        scratch_(scope_.Take(DType::kF32, pool_.threads(), kernels.scratch_floats)) {}

  // H = U U^T. Returns the failed column, or -1.
  int64_t Factor() {
    for (int64_t block = TilesOf(n_) - 1; block >= 0; --block) {
      const int64_t failed = FactorDiagonal(block);
      if (failed >= 0) return failed;
      pool_.ParallelFor(block, [&](int64_t tile, int) {
        kernels_.panel(gram_, stride_, tile * kTile, kTile, block * kTile, Width(block), triangle_,
                       panel_);
      });
      ForEachTile(pool_, block, [&](int64_t row, int64_t col, int) {
        kernels_.update(gram_, stride_, row * kTile, kTile, col * kTile, kTile, Width(block),
                        panel_);
      });
    }
    return -1;
  }

  // R = U^-1.
  void Invert() {
    const int64_t blocks = TilesOf(n_);
    for (int64_t block = blocks - 1; block >= 0; --block) {
      const int64_t j0 = block * kTile;
      PackTriangle(block);
      pool_.ParallelFor(blocks - block - 1, [&](int64_t tile, int) {
        const int64_t c = (block + 1 + tile) * kTile;
        kernels_.pack_row(gram_, stride_, n_, j0, Width(block), c, std::min(kTile, n_ - c), panel_);
      });
      // The last tile has the longest sum: first, so that no thread is left alone with it.
      pool_.ParallelFor(blocks - block, [&](int64_t tile, int thread) {
        const int64_t col = blocks - 1 - tile;
        kernels_.invert(gram_, stride_, n_, j0, Width(block), col * kTile, Width(col), triangle_,
                        panel_, scratch_.Row<float>(thread));
      });
    }
  }

 private:
  int64_t Width(int64_t block) const { return std::min(kTile, n_ - block * kTile); }
  int64_t FactorDiagonal(int64_t block) {
    return kernels_.diagonal(gram_, stride_, block * kTile, Width(block), triangle_,
                             scratch_.Row<float>(0));
  }
  void PackTriangle(int64_t block) {
    kernels_.pack_triangle(gram_, stride_, block * kTile, Width(block), triangle_);
  }

  ThreadPool& pool_;
  const FactorKernels& kernels_;
  const int64_t n_;
  const int64_t stride_;
  float* const gram_;
  Workspace::Scope scope_;
  float* const triangle_;
  float* const panel_;
  const Matrix scratch_;
};

}  // namespace

void CpuBackend::PermuteGram(Exec& exec, std::span<const int32_t> order, Matrix gram) {
  CheckPermuteGram(order, gram);
  if (gram.rows == 0) return;
  Mirror(PoolOf(exec), SelectSolveKernels(isa_), /*to_lower=*/true, gram);
  if (std::is_sorted(order.begin(), order.end())) return;
  PermuteColumns(exec, order, gram);
  PermuteRows(PoolOf(exec), order, gram);
}

FactorResult CpuBackend::FactorGram(Exec& exec, ConstMatrix diagonal, float damp,
                                    Precision precision, Matrix gram) {
  CheckFactorGram(diagonal, gram);
  const int64_t n = gram.rows;
  if (n == 0) return {true, -1};
  if (precision == Precision::kF64) return FactorInF64(exec, diagonal, damp, gram);
  Mirror(PoolOf(exec), SelectSolveKernels(isa_), /*to_lower=*/false, gram);
  for (int64_t i = 0; i < n; ++i) gram.Row<float>(i)[i] = diagonal.Row<float>(0)[i] + damp;
  Factorizer factorizer(exec, SelectFactorKernels(isa_), gram);
  const int64_t failed = factorizer.Factor();
  if (failed >= 0) return {false, failed};
  factorizer.Invert();
  return {true, -1};
}

}  // namespace quantmill::cpu
