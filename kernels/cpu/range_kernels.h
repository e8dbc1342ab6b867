// The kernel behind AddRange, one table per instruction set.
#ifndef QUANTMILL_KERNELS_CPU_RANGE_KERNELS_H_
#define QUANTMILL_KERNELS_CPU_RANGE_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace quantmill::cpu {

// Columns that one call looks at; a multiple of every vector length.
inline constexpr int64_t kRangeCols = 64;

struct RangeArgs {
  const void* x = nullptr;  // [tokens][cols] F32 or BF16
  int64_t x_row = 0;        // elements between tokens
  bool bf16 = false;        // type of x
  int64_t tokens = 0;
  int64_t cols = 0;      // <= kRangeCols
  float* low = nullptr;  // [cols], lowered
  float* high = nullptr;
};

struct RangeKernels {
  void (*add)(const RangeArgs& args);
};

QUANTMILL_DECLARE_ISA_TABLE(RangeKernels, kRangeKernels);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_RANGE_KERNELS_H_
