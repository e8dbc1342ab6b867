// Columns of a matrix in another order.
#ifndef QUANTMILL_KERNELS_CUDA_COLUMNS_H_
#define QUANTMILL_KERNELS_CUDA_COLUMNS_H_

#include <cstdint>

#include "kernels/ops.h"

namespace quantmill::QUANTMILL_CUDA {

// to[r, k] = from[r, order[k]].  from, to: F32 of one shape, not aliasing.  order: device memory, a
// permutation of the columns.
void GatherColumns(Exec& exec, ConstMatrix from, const int32_t* order, Matrix to);

// to[r, order[k]] = from[r, k], likewise.
void ScatterColumns(Exec& exec, ConstMatrix from, const int32_t* order, Matrix to);

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_COLUMNS_H_
