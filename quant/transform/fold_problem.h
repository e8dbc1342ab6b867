// The search for the scales of one site's inputs: what is known, and what is asked.
#ifndef QUANTMILL_QUANT_TRANSFORM_FOLD_PROBLEM_H_
#define QUANTMILL_QUANT_TRANSFORM_FOLD_PROBLEM_H_

#include <cstdint>
#include <vector>

#include "kernels/core/matrix.h"
#include "kernels/core/scheme.h"

namespace quantmill {

// Linears that read one input x, with statistics of x. A vector s of positive scales is sought, so
// that Q(W diag(s)) Q(diag(1/s) x) is close to W x, Q being the rounding of scheme and of its
// inputs. Columns may share a scale (query heads that read one key-value head).
struct FoldProblem {
  // Rows of the linears, or an even sample of them, [rows, in] F32 in host memory.
  Tensor weight;
  QuantScheme scheme;
  std::vector<int32_t> scale_of;  // [in]: which element of s scales a column; each in [0, scales)
  int64_t scales = 0;

  // Of the tokens seen, by column:
  std::vector<float> mean_square;  // of x_i
  std::vector<float> absmax;       // of x_i
  // What an error of one weight of column i costs, in mean squared output: mean_square, or what
  // remains of it after a solver's compensation.
  std::vector<float> importance;
  // Some tokens' x, [tokens, in] F32 in host memory, where the scheme rounds inputs; empty
  // otherwise.
  Tensor sample;

  int64_t in() const { return weight.cols(); }
};

// An even sample of at most `limit` of `rows` row numbers, ascending.
std::vector<int64_t> SampleRows(int64_t rows, int64_t limit);

// s rounded to BF16, as it is recorded.
std::vector<float> RoundScales(std::vector<float> scales);

// scales / sqrt(largest * smallest), each within [1e-4, 1e4].
std::vector<float> Normalized(std::vector<float> scales);

// [in]: the scale of each column.
std::vector<float> ColumnScales(const FoldProblem& problem, const std::vector<float>& scales);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_TRANSFORM_FOLD_PROBLEM_H_
