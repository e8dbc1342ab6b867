// Loops over arrays in registers.
#ifndef QUANTMILL_KERNELS_CUDA_UNROLL_H_
#define QUANTMILL_KERNELS_CUDA_UNROLL_H_

#include <type_traits>
#include <utility>

#include "kernels/cuda/device.h"

namespace quantmill::QUANTMILL_CUDA {

template <int... kIndices, typename Visit>
__device__ void VisitEach(std::integer_sequence<int, kIndices...>, const Visit& visit) {
  (visit(std::integral_constant<int, kIndices>()), ...);
}

// visit(0), ..., visit(kCount - 1), each index a constant of its own type: an array that is indexed
// by constants alone stays in registers, on every compiler.
template <int kCount, typename Visit>
__device__ void Unrolled(const Visit& visit) {
  VisitEach(std::make_integer_sequence<int, kCount>(), visit);
}

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_UNROLL_H_
