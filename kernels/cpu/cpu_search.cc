// SearchGrid and RefineCodes of the cpu backend: shapes and tiles.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/search_kernels.h"
#include "kernels/cpu/solve_shapes.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {

QUANTMILL_DEFINE_ISA_TABLE(SearchKernels, kSearchKernels)
QUANTMILL_DEFINE_ISA_TABLE(RefineKernels, kRefineKernels)

namespace {

// How a scale is stored.
struct Rounding {
  DType dtype;
  float global_scale;
};

float RoundScale(const void* rounding, float scale) {
  const auto& r = *static_cast<const Rounding*>(rounding);
  return RoundTo(r.dtype, scale * r.global_scale) / r.global_scale;
}

}  // namespace

void CpuBackend::SearchGrid(Exec& exec, ConstMatrix weight, ConstMatrix blocks,
                            const QuantScheme& scheme, const GridSearch& search, Matrix scales,
                            Matrix zero_points) {
  CheckSearchGrid(weight, blocks, scheme, search, scales, zero_points);
  const int64_t size = scheme.GroupSizeFor(weight.cols);
  if (weight.size() == 0) return;
  const SearchKernels& kernels = SelectSearchKernels(isa_);
  const Rounding rounding{scheme.scale_dtype, search.global_scale};
  ThreadPool& pool = PoolOf(exec);
  Workspace::Scope scope(exec.workspace);
  const Matrix scratch = scope.Take(DType::kF32, pool.threads(), kernels.scratch(size));
  const int64_t strips = (weight.rows + kernels.strip_rows - 1) / kernels.strip_rows;
  pool.ParallelFor(strips, [&](int64_t strip, int thread) {
    const int64_t row = strip * kernels.strip_rows;
    for (int64_t g = 0; g < scales.cols; ++g) {
      SearchTile tile{};
      tile.weight = weight.Row<float>(row) + g * size;
      tile.weight_stride = weight.stride;
      tile.rows = std::min(kernels.strip_rows, weight.rows - row);
      tile.width = std::min(size, weight.cols - g * size);
      tile.blocks = blocks.Row<float>(g * size);
      tile.blocks_stride = blocks.stride;
      tile.block = blocks.cols;
      tile.range = RangeOf(scheme);
      tile.coarse = search.coarse.data();
      tile.coarse_count = std::ssize(search.coarse);
      tile.fine = search.fine.data();
      tile.fine_count = std::ssize(search.fine);
      tile.mirror = search.mirror;
      tile.round_scale = RoundScale;
      tile.rounding = &rounding;
      tile.scales = scales.Row<float>(row) + g;
      tile.grid_stride = scales.stride;
      tile.zeros = scheme.symmetric ? nullptr : zero_points.Row<int8_t>(row) + g;
      tile.zeros_stride = zero_points.stride;
      tile.scratch = scratch.Row<float>(thread);
      kernels.search(tile);
    }
  });
}

void CpuBackend::RefineCodes(Exec& exec, const GptqProblem& problem, ConstMatrix diagonal,
                             int sweeps, Matrix codes) {
  CheckRefineCodes(problem, diagonal, codes);
  const ConstMatrix& weight = problem.weight;
  const int64_t in = weight.cols;
  if (weight.size() == 0 || sweeps == 0) return;
  const std::vector<int32_t> group_of =
      GroupsInOrder(problem.order, problem.scheme.GroupSizeFor(in));
  const RefineKernels& kernels = SelectRefineKernels(isa_);
  ThreadPool& pool = PoolOf(exec);
  const int64_t step = TileRows(in);
  const int64_t groups = problem.scales.cols;
  Workspace::Scope scope(exec.workspace);
  const Matrix scratch = scope.Take(DType::kF32, pool.threads(), kernels.scratch(step, in, groups));
  pool.ParallelFor((weight.rows + step - 1) / step, [&](int64_t task, int thread) {
    const int64_t row = task * step;
    const Matrix rows = codes.Rows(row, std::min(step, weight.rows - row));
    kernels.refine(TileOf(problem, group_of, row, rows, scratch.Row<float>(thread)),
                   diagonal.Row<float>(0), sweeps);
  });
}

}  // namespace quantmill::cpu
