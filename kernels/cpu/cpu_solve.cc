// Grids, the GPTQ solve and quadratic forms of the cpu backend: shapes and tiles.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/solve_kernels.h"
#include "kernels/cpu/solve_shapes.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {

QUANTMILL_DEFINE_ISA_TABLE(SolveKernels, kSolveKernels)
QUANTMILL_DEFINE_ISA_TABLE(GptqKernels, kGptqKernels)

namespace {

// Runs work(row) for all rows, in tasks of about 64 Ki elements.
template <typename Work>
void ForEachRow(ThreadPool& pool, int64_t rows, int64_t cols, const Work& work) {
  const int64_t step = std::max<int64_t>(1, (int64_t{1} << 16) / std::max<int64_t>(1, cols));
  pool.ParallelFor((rows + step - 1) / step, [&](int64_t task, int) {
    for (int64_t r = task * step; r < std::min(rows, (task + 1) * step); ++r) work(r);
  });
}

struct GridPoint {
  float scale;
  int8_t zero_point;
};

GridPoint SmallestGrid(float lo, float hi, const QuantScheme& scheme) {
  const auto min_code = static_cast<float>(scheme.min_code());
  const auto max_code = static_cast<float>(scheme.max_code());
  const float steps = max_code - min_code;
  float scale = 0;
  float zero = 0;
  if (scheme.symmetric) {
    scale = std::max(-lo, hi) / scheme.half_range();
  } else {
    scale = (hi - lo) / steps;
    // lo = 0 apart: 0 / 0 in an all-zero group.
    zero = lo == 0 ? min_code : std::nearbyint(min_code - lo / scale);
    zero = std::clamp(zero, min_code, max_code);
  }
  scale = RoundTo(scheme.scale_dtype, scale);
  if (scale == 0) {
    const float smallest_normal = scheme.scale_dtype == DType::kF16 ? 0x1p-14f : 0x1p-126f;
    scale = lo == 0 && hi == 0 ? scheme.scale_of_zeros() : smallest_normal;
  }
  return {scale, static_cast<int8_t>(zero)};
}

}  // namespace

void CpuBackend::MinMaxGrid(Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                            Matrix scales, Matrix zero_points) {
  CheckMinMaxGrid(weight, scheme, scales, zero_points);
  const SolveKernels& kernels = SelectSolveKernels(isa_);
  const int64_t size = scheme.GroupSizeFor(weight.cols);
  ForEachRow(PoolOf(exec), weight.rows, weight.cols, [&](int64_t r) {
    const auto* row = weight.Row<float>(r);
    for (int64_t g = 0; g < scales.cols; ++g) {
      float lo = 0;
      float hi = 0;
      kernels.range(row + g * size, std::min(size, weight.cols - g * size), &lo, &hi);
      const GridPoint point = SmallestGrid(lo, hi, scheme);
      scales.Row<float>(r)[g] = point.scale;
      if (!scheme.symmetric) zero_points.Row<int8_t>(r)[g] = point.zero_point;
    }
  });
}

void CpuBackend::RoundToGrid(Exec& exec, ConstMatrix weight, const QuantScheme& scheme,
                             ConstMatrix scales, ConstMatrix zero_points, Matrix codes) {
  CheckRoundToGrid(weight, scheme, scales, zero_points, codes);
  const SolveKernels& kernels = SelectSolveKernels(isa_);
  const int64_t size = scheme.GroupSizeFor(weight.cols);
  const CodeRange range = RangeOf(scheme);
  std::atomic<bool> numbers{true};
  ForEachRow(PoolOf(exec), weight.rows, weight.cols, [&](int64_t r) {
    for (int64_t g = 0; g < scales.cols; ++g) {
      const int64_t begin = g * size;
      const float zero =
          scheme.symmetric ? 0.0f : static_cast<float>(zero_points.Row<int8_t>(r)[g]);
      if (!kernels.round(weight.Row<float>(r) + begin, std::min(size, weight.cols - begin),
                         scales.Row<float>(r)[g], zero, range, codes.Row<int8_t>(r) + begin)) {
        numbers = false;
      }
    }
  });
  Check(numbers, "RoundToGrid: a weight is NaN");
}

void CpuBackend::GptqSolve(Exec& exec, const GptqProblem& problem, Matrix codes, Matrix loss) {
  CheckGptqSolve(problem, codes, loss);
  const ConstMatrix& weight = problem.weight;
  const int64_t in = weight.cols;
  if (in == 0) {
    std::fill_n(loss.Row<float>(0), loss.cols, 0.0f);
    return;
  }
  const std::vector<int32_t> group_of =
      GroupsInOrder(problem.order, problem.scheme.GroupSizeFor(in));
  const GptqKernels& kernels = SelectGptqKernels(isa_);
  ThreadPool& pool = PoolOf(exec);
  const int64_t step = TileRows(in);
  const int64_t groups = problem.scales.cols;
  Workspace::Scope scope(exec.workspace);
  const Matrix scratch = scope.Take(DType::kF32, pool.threads(), kernels.scratch(step, in, groups));
  pool.ParallelFor((weight.rows + step - 1) / step, [&](int64_t task, int thread) {
    const int64_t row = task * step;
    const Matrix rows = codes.Rows(row, std::min(step, weight.rows - row));
    GptqTile tile = TileOf(problem, group_of, row, rows, scratch.Row<float>(thread));
    tile.loss = loss.Row<float>(0) + row;
    kernels.solve(tile);
  });
}

void CpuBackend::QuadraticForm(Exec& exec, ConstMatrix delta, ConstMatrix gram,
                               ConstMatrix diagonal, Matrix result) {
  CheckQuadraticForm(delta, gram, diagonal, result);
  const int64_t in = delta.cols;
  if (in == 0) {
    std::fill_n(result.Row<float>(0), result.cols, 0.0f);
    return;
  }
  const SolveKernels& kernels = SelectSolveKernels(isa_);
  ThreadPool& pool = PoolOf(exec);
  const int64_t step = TileRows(in);
  Workspace::Scope scope(exec.workspace);
  const Matrix scratch =
      scope.Take(DType::kF32, pool.threads(), kernels.quadratic_scratch(step, in));
  pool.ParallelFor((delta.rows + step - 1) / step, [&](int64_t task, int thread) {
    const int64_t row = task * step;
    kernels.quadratic(delta.Row<float>(row), delta.stride, std::min(step, delta.rows - row), in,
                      gram.Row<float>(0), gram.stride, diagonal.Row<float>(0),
                      result.Row<float>(0) + row, scratch.Row<float>(thread));
  });
}

}  // namespace quantmill::cpu
