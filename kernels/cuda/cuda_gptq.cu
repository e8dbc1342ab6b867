// GptqSolve of the cuda backend (algorithms.md section 1, steps 6 and 7).
//
// Weights are gathered into solve order. A block of 128 columns is then settled by one kernel,
// which leaves -e in their place, and one library product moves all columns behind it: w -= e R.
// The products are most of the work, in / 2 multiplications a weight; each reads and writes the
// rest of the weights once, which takes about as long as its arithmetic.
#include <algorithm>

#include "kernels/cuda/blas.h"
#include "kernels/cuda/column_block.h"
#include "kernels/cuda/columns.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/problem.h"
#include "kernels/cuda/staging.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

// Blocks and lanes: column_block.h. w: the block's columns, in solve order; -e on return. factor: R
// of these columns, upper triangle. loss[row] += sum e^2.
template <typename Kind>
__global__ void SolveBlockKernel(Kind kind, View<const float> factor, OrderedCodes codes,
                                 View<float> w, float* loss) {
  ColumnBlock block(w.rows, w.cols);
  const int64_t row = block.row();
  const auto columns = static_cast<int>(w.cols);
  block.LoadRow({w.data, w.rows, w.cols, w.stride});
  block.LoadSquare(factor);
  block.ChangeDiagonal([](float r) { return 1.0f / r; });
  float sum = 0;  // of this block alone, so that the sum's error grows with its square root
  GridPoint next = codes.Point(row, 0);  // asked for one column ahead: memory is far
  block.SettleAll([&](int k, float weight) {
    const GridPoint point = next;
    if (k + 1 < columns) next = codes.Point(row, k + 1);
    const int8_t code = kind.CodeOf(weight, point);
    if (block.Keeps(k)) codes.Set(row, k, code);
    const float e = (weight - kind.ValueOf(code, point)) * block.Diagonal(k);
    sum = fmaf(e, e, sum);
    return -e;
  });
  if (!block.writes()) return;
  block.ForEachOwn([&](int64_t j, float minus_e) { w.Row(row)[j] = minus_e; });
  if (block.Keeps(0)) loss[row] += sum;
}

// All rows of `problem` at once.
void SolveRows(Exec& exec, const GptqProblem& problem, const int32_t* order, Matrix codes,
               float* loss) {
  const int64_t rows = problem.weight.rows;
  const int64_t in = problem.weight.cols;
  Workspace::Scope scope(exec.workspace);
  const Matrix w = scope.Take(DType::kF32, rows, in);
  GatherColumns(exec, problem.weight, order, w);
  for (int64_t begin = 0; begin < in; begin += kBlockColumns) {
    const int64_t count = std::min<int64_t>(kBlockColumns, in - begin);
    const int64_t end = begin + count;
    const Matrix block = w.Cols(begin, count);
    const ConstMatrix factor = problem.factor.Rows(begin, count);
    WithCodes(problem.scheme, [&](auto kind) {
      Launch(exec, SolveBlockKernel<decltype(kind)>, ColumnBlockShape(rows), kind,
             In<float>(factor.Cols(begin, count)), OrderedCodesOf(problem, codes, order + begin),
             Out<float>(block), loss);
    });
    Gemm(exec, Transpose::kNo, block, Transpose::kNo, factor.Cols(end, in - end), 1,
         w.Cols(end, in - end));
  }
}

}  // namespace

void CudaBackend::GptqSolve(Exec& exec, const GptqProblem& problem, Matrix codes, Matrix loss) {
  CheckGptqSolve(problem, codes, loss);
  const int64_t rows = problem.weight.rows;
  Zero(exec, loss);
  if (problem.weight.size() == 0) return;
  Workspace::Scope scope(exec.workspace);
  const int32_t* order = OnDevice(exec, scope, problem.order);
  for (int64_t first = 0; first < rows; first += kChunkRows) {
    const int64_t count = std::min(kChunkRows, rows - first);
    SolveRows(exec, RowsOf(problem, first, count), order, codes.Rows(first, count),
              loss.Row<float>(0) + first);
  }
}

}  // namespace quantmill::QUANTMILL_CUDA
