// What the kernels of GptqSolve and RefineCodes take of a GptqProblem.
#ifndef QUANTMILL_KERNELS_CUDA_PROBLEM_H_
#define QUANTMILL_KERNELS_CUDA_PROBLEM_H_

#include <cstdint>

#include "kernels/cuda/codes.h"
#include "kernels/ops.h"

namespace quantmill::QUANTMILL_CUDA {

// Rows [begin, begin + count) of a problem.
inline GptqProblem RowsOf(const GptqProblem& problem, int64_t begin, int64_t count) {
  GptqProblem part = problem;
  part.weight = problem.weight.Rows(begin, count);
  part.scales = problem.scales.Rows(begin, count);
  if (!problem.scheme.symmetric) part.zero_points = problem.zero_points.Rows(begin, count);
  return part;
}

// Codes of consecutive columns of the solve order, and the grid on which they lie.
struct OrderedCodes {
  GridView grid;
  View<int8_t> codes;    // columns in their original order
  const int32_t* order;  // device memory, of the first column

  __device__ GridPoint Point(int64_t row, int64_t k) const { return grid.At(row, order[k]); }
  __device__ int8_t Get(int64_t row, int64_t k) const { return codes.Row(row)[order[k]]; }
  __device__ void Set(int64_t row, int64_t k, int8_t code) const {
    codes.Row(row)[order[k]] = code;
  }
};

inline OrderedCodes OrderedCodesOf(const GptqProblem& problem, Matrix codes, const int32_t* order) {
  return {GridOf(problem.scheme, problem.weight.cols, problem.scales, problem.zero_points),
          Out<int8_t>(codes), order};
}

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_PROBLEM_H_
