// Sums of squares behind WeightError, row by row, so that many threads can share one layer.
#ifndef QUANTMILL_QUANT_VERIFY_WEIGHT_ERROR_H_
#define QUANTMILL_QUANT_VERIFY_WEIGHT_ERROR_H_

#include <cstdint>
#include <span>

#include "kernels/core/matrix.h"
#include "kernels/core/scheme.h"

namespace quantmill {

// Rows that one thread takes at a time.
inline constexpr int64_t kRowsPerTask = 64;

// Of one row: |w_quantized - w|^2 and |w|^2, each summed in double in an order that `in` fixes.
struct RowSquares {
  double difference = 0;
  double weight = 0;
};

// rows[i] belongs to row begin + i of `linear`. dense: [out, in] F32 | F16 | BF16 in host memory.
void SquaresOfRows(const QuantizedLinear& linear, ConstMatrix dense, int64_t begin,
                   std::span<RowSquares> rows);

// |dW|^2 / |W|^2 from the squares of all rows, added in row order: the same bits however the rows
// were shared out. 0 if both are zero, infinity if only W is.
double RelativeError(std::span<const RowSquares> rows);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_VERIFY_WEIGHT_ERROR_H_
