#include <algorithm>
#include <cstdint>

#include "formats/checkpoint.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// A block is searched by a loop without exits, which compilers vectorize; only a block with a hit
// is then looked at element by element.
constexpr int64_t kBlock = 1024;

// Index of the first of `count` elements whose exponent bits are all set, or -1.
template <typename Bits>
int64_t FirstNonFinite(const Bits* data, int64_t count, Bits exponent) {
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, count);
    Bits hit = 0;
    for (int64_t i = begin; i < end; ++i) {
      hit |= static_cast<Bits>((data[i] & exponent) == exponent);
    }
    if (hit == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      if ((data[i] & exponent) == exponent) return i;
    }
  }
  return -1;
}

template <typename Bits>
std::optional<int64_t> FindInRows(const ConstMatrix& matrix, Bits exponent) {
  const auto* data = static_cast<const Bits*>(matrix.data);
  // A contiguous matrix is one long row.
  const int64_t rows = matrix.contiguous() ? 1 : matrix.rows;
  const int64_t cols = matrix.contiguous() ? matrix.size() : matrix.cols;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t c = FirstNonFinite(data + r * matrix.stride, cols, exponent);
    if (c >= 0) return r * matrix.cols + c;
  }
  return std::nullopt;
}

}  // namespace

std::optional<int64_t> FindNonFinite(ConstMatrix matrix) {
  if (matrix.size() == 0) return std::nullopt;
  switch (matrix.dtype) {
    case DType::kF32:
      return FindInRows<uint32_t>(matrix, 0x7F800000u);
    case DType::kF16:
      return FindInRows<uint16_t>(matrix, 0x7C00u);
    case DType::kBF16:
      return FindInRows<uint16_t>(matrix, 0x7F80u);
    default:
      break;
  }
  Check(false, "FindNonFinite needs F32, F16 or BF16");
  return std::nullopt;
}

}  // namespace quantmill
