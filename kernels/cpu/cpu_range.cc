// AddRange of the cpu backend: a task is a slice of columns, over all tokens.
#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/range_kernels.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {

QUANTMILL_DEFINE_ISA_TABLE(RangeKernels, kRangeKernels)

void CpuBackend::AddRange(Exec& exec, ConstMatrix x, Matrix range) {
  CheckAddRange(x, range);
  if (x.size() == 0) return;
  const RangeKernels& kernels = SelectRangeKernels(isa_);
  PoolOf(exec).ParallelFor((x.cols + kRangeCols - 1) / kRangeCols, [&](int64_t task, int) {
    const int64_t first = task * kRangeCols;
    const int64_t cols = std::min(kRangeCols, x.cols - first);
    kernels.add({.x = x.Cols(first, cols).data,
                 .x_row = x.stride,
                 .bf16 = x.dtype == DType::kBF16,
                 .tokens = x.rows,
                 .cols = cols,
                 .low = range.Row<float>(0) + first,
                 .high = range.Row<float>(1) + first});
  });
}

}  // namespace quantmill::cpu
