// Keys and values as a store of KvShape keeps them, of the reference backend.
#ifndef QUANTMILL_KERNELS_REFERENCE_REFERENCE_KV_H_
#define QUANTMILL_KERNELS_REFERENCE_REFERENCE_KV_H_

#include <span>

#include "kernels/ops.h"

namespace quantmill::reference {

// One token's head x, rounded as the store rounds it, and decoded: in place. Values of kInt4 stay
// rotated. `scale`: of the head, for kFp8.
void RoundHead(const KvShape& shape, float scale, std::span<float> x);

// y = H y / sqrt(n) in double precision, n a power of two: its own inverse.
void RotateExactly(std::span<double> y);

}  // namespace quantmill::reference

#endif  // QUANTMILL_KERNELS_REFERENCE_REFERENCE_KV_H_
