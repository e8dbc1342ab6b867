// RefineCodes of the cuda backend.
//
// D = q - w is kept for all columns, in solve order. A span of 512 columns takes its gradient D G
// fresh, as three library products (left of the span, its own square, right of it: G lies in one
// triangle), so that nothing drifts over many sweeps. One kernel then settles 128 of its columns at
// a time, and a product moves the gradient of those behind them in the span. The products are
// nearly all of the work, `in` multiplications a weight and sweep; a span is wide enough for them
// to fill a device.
#include <algorithm>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/column_block.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/problem.h"
#include "kernels/cuda/staging.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

template <typename Kind>
__global__ void DeltaKernel(Kind kind, View<const float> weight, OrderedCodes codes,
                            View<float> delta) {
  ForEachElement(delta.rows, delta.cols, [&](int64_t row, int64_t k) {
    const float q = kind.ValueOf(codes.Get(row, k), codes.Point(row, k));
    delta.Row(row)[k] = q - weight.Row(row)[codes.order[k]];
  });
}

// Columns that take their gradient together.
constexpr int64_t kSpan = 512;

// All of G's square on the diagonal from its strict lower triangle and its diagonal.
__global__ void CompleteSquareKernel(View<const float> lower, const float* diagonal,
                                     View<float> square) {
  ForEachElement(square.rows, square.cols, [&](int64_t i, int64_t j) {
    square.Row(i)[j] = i == j ? diagonal[i] : lower.Row(std::max(i, j))[std::min(i, j)];
  });
}

// Blocks and lanes: column_block.h. gradient: D G of the block's columns; on return, by how much
// their values changed. square: G of them. Codes change in place, and delta, D of these columns.
template <typename Kind>
__global__ void RefineBlockKernel(Kind kind, View<const float> square, OrderedCodes codes,
                                  View<float> gradient, View<float> delta) {
  ColumnBlock block(delta.rows, delta.cols);
  const int64_t row = block.row();
  const auto columns = static_cast<int>(delta.cols);
  block.LoadRow({gradient.data, gradient.rows, gradient.cols, gradient.stride});
  block.LoadSquare(square);
  GridPoint next_point = codes.Point(row, 0);  // asked for one column ahead: memory is far
  int8_t next_code = codes.Get(row, 0);
  block.SettleAll([&](int k, float slope) {
    const GridPoint point = next_point;
    const int8_t old_code = next_code;
    if (k + 1 < columns) {
      next_point = codes.Point(row, k + 1);
      next_code = codes.Get(row, k + 1);
    }
    const float curvature = block.Diagonal(k);
    if (!(curvature > 0)) return 0.0f;
    const float old_value = kind.ValueOf(old_code, point);
    const int8_t code = kind.CodeOf(old_value - slope / curvature, point);
    if (block.Keeps(k)) codes.Set(row, k, code);
    return kind.ValueOf(code, point) - old_value;
  });
  if (!block.writes()) return;
  block.ForEachOwn([&](int64_t j, float change) {
    gradient.Row(row)[j] = change;
    delta.Row(row)[j] += change;
  });
}

// The rows of one chunk: what lies in memory while they are refined.
struct Refinement {
  ConstMatrix gram;  // G in the strict lower triangle
  ConstMatrix diagonal;
  Matrix delta;     // [rows, in]
  Matrix gradient;  // [rows, kSpan]
  Matrix square;    // [kSpan, kSpan]: G of a span
};

// gradient = D G, for the span [begin, begin + count).
void TakeGradient(Exec& exec, const Refinement& r, int64_t begin, int64_t count) {
  const int64_t end = begin + count;
  const int64_t behind = r.gram.cols - end;
  const ConstMatrix rows = r.gram.Rows(begin, count);
  const Matrix square = r.square.Rows(0, count).Cols(0, count);
  Launch(exec, CompleteSquareKernel, Elementwise(count, count), In<float>(rows.Cols(begin, count)),
         r.diagonal.Row<float>(0) + begin, Out<float>(square));
  const Matrix gradient = r.gradient.Cols(0, count);
  Gemm(exec, Transpose::kNo, r.delta.Cols(begin, count), Transpose::kNo, square, 0, gradient);
  Gemm(exec, Transpose::kNo, r.delta.Cols(0, begin), Transpose::kYes, rows.Cols(0, begin), 1,
       gradient);
  Gemm(exec, Transpose::kNo, r.delta.Cols(end, behind), Transpose::kNo,
       r.gram.Rows(end, behind).Cols(begin, count), 1, gradient);
}

// One sweep over the span that has the gradient.
template <typename Kind>
void RefineSpan(Exec& exec, Kind kind, const Refinement& r, const OrderedCodes& codes,
                int64_t begin, int64_t count) {
  for (int64_t first = 0; first < count; first += kBlockColumns) {
    const int64_t columns = std::min<int64_t>(kBlockColumns, count - first);
    const int64_t end = first + columns;
    const ConstMatrix rows = r.square.Rows(first, columns);
    const Matrix gradient = r.gradient.Cols(first, columns);
    OrderedCodes block = codes;
    block.order += begin + first;
    Launch(exec, RefineBlockKernel<Kind>, ColumnBlockShape(r.delta.rows), kind,
           In<float>(rows.Cols(first, columns)), block, Out<float>(gradient),
           Out<float>(r.delta.Cols(begin + first, columns)));
    Gemm(exec, Transpose::kNo, gradient, Transpose::kNo, rows.Cols(end, count - end), 1,
         r.gradient.Cols(end, count - end));
  }
}

// All rows of `problem` at once.
void RefineRows(Exec& exec, const GptqProblem& problem, ConstMatrix diagonal, const int32_t* order,
                int sweeps, Matrix codes) {
  const int64_t rows = problem.weight.rows;
  const int64_t in = problem.weight.cols;
  const int64_t span = std::min(int64_t{kSpan}, in);
  Workspace::Scope scope(exec.workspace);
  const Refinement r{problem.factor, diagonal, scope.Take(DType::kF32, rows, in),
                     scope.Take(DType::kF32, rows, span), scope.Take(DType::kF32, span, span)};
  const OrderedCodes ordered = OrderedCodesOf(problem, codes, order);
  WithCodes(problem.scheme, [&](auto kind) {
    Launch(exec, DeltaKernel<decltype(kind)>, Elementwise(rows, in), kind,
           In<float>(problem.weight), ordered, Out<float>(r.delta));
    for (int sweep = 0; sweep < sweeps; ++sweep) {
      for (int64_t begin = 0; begin < in; begin += kSpan) {
        const int64_t count = std::min(int64_t{kSpan}, in - begin);
        TakeGradient(exec, r, begin, count);
        RefineSpan(exec, kind, r, ordered, begin, count);
      }
    }
  });
}

}  // namespace

void CudaBackend::RefineCodes(Exec& exec, const GptqProblem& problem, ConstMatrix diagonal,
                              int sweeps, Matrix codes) {
  CheckRefineCodes(problem, diagonal, codes);
  const int64_t rows = problem.weight.rows;
  if (problem.weight.size() == 0 || sweeps == 0) return;
  Workspace::Scope scope(exec.workspace);
  const int32_t* order = OnDevice(exec, scope, problem.order);
  for (int64_t first = 0; first < rows; first += kChunkRows) {
    const int64_t count = std::min(kChunkRows, rows - first);
    RefineRows(exec, RowsOf(problem, first, count), diagonal, order, sweeps,
               codes.Rows(first, count));
  }
}

}  // namespace quantmill::QUANTMILL_CUDA
