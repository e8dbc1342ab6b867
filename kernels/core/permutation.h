// Orders of columns.
#ifndef QUANTMILL_KERNELS_CORE_PERMUTATION_H_
#define QUANTMILL_KERNELS_CORE_PERMUTATION_H_

#include <cstdint>
#include <span>

namespace quantmill {

// Aborts (Check) unless `order` holds each of 0 .. n - 1 once.
void CheckPermutation(std::span<const int32_t> order, int64_t n);

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_CORE_PERMUTATION_H_
