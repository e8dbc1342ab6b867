#include "quant/model/dense_matrix.h"

#include <algorithm>
#include <cstdint>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Both sides of a tile stay in the first-level cache.
constexpr int64_t kTile = 32;

template <typename T>
void TransposeInto(ConstMatrix from, Matrix to) {
  for (int64_t row = 0; row < from.rows; row += kTile) {
    for (int64_t col = 0; col < from.cols; col += kTile) {
      for (int64_t r = row; r < std::min(row + kTile, from.rows); ++r) {
        const T* values = from.Row<T>(r);
        for (int64_t c = col; c < std::min(col + kTile, from.cols); ++c) {
          to.Row<T>(c)[r] = values[c];
        }
      }
    }
  }
}

}  // namespace

Tensor Transposed(ConstMatrix matrix) {
  Tensor result = HostTensor(matrix.dtype, matrix.cols, matrix.rows);
  switch (matrix.dtype) {
    case DType::kF32:
      TransposeInto<float>(matrix, result);
      break;
    case DType::kF16:
      TransposeInto<F16>(matrix, result);
      break;
    case DType::kBF16:
      TransposeInto<BF16>(matrix, result);
      break;
    default:
      Check(false, "Transposed: a type that is not a dense float");
  }
  return result;
}

}  // namespace quantmill
