// Single elements of matrices, whatever their type.
#ifndef QUANTMILL_KERNELS_REFERENCE_REFERENCE_ELEMENTS_H_
#define QUANTMILL_KERNELS_REFERENCE_REFERENCE_ELEMENTS_H_

#include <cstdint>

#include "kernels/core/error.h"
#include "kernels/core/matrix.h"

namespace quantmill::reference {

// Element (r, c) of a matrix F32|F16|BF16 in host memory.
inline float Read(ConstMatrix m, int64_t r, int64_t c) {
  switch (m.dtype) {
    case DType::kF32:
      return m.Row<float>(r)[c];
    case DType::kF16:
      return ToFloat(m.Row<F16>(r)[c]);
    case DType::kBF16:
      return ToFloat(m.Row<BF16>(r)[c]);
    default:
      Check(false, "not a dense float matrix");
      return 0;
  }
}

}  // namespace quantmill::reference

#endif  // QUANTMILL_KERNELS_REFERENCE_REFERENCE_ELEMENTS_H_
