// Where the sums of a product go.
#ifndef QUANTMILL_KERNELS_CPU_MATMUL_OUTPUT_H_
#define QUANTMILL_KERNELS_CPU_MATMUL_OUTPUT_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/matmul_kernels.h"
#include "kernels/ops.h"

namespace quantmill::cpu {

// Backend::MatMul's arguments of these names. Views are borrowed.
struct MatMulOutput {
  ConstMatrix bias;
  MatMulMode mode;
  Matrix y;

  // sums: [rows][kernels.panel_cols], of rows [row, row + rows) and of the panel's columns.
  void Store(const MatMulKernels& kernels, int64_t row, int rows, int64_t panel,
             const float* sums) const {
    const int64_t first = panel * kernels.panel_cols;
    StoreArgs store;
    store.rows = rows;
    store.cols = std::min<int64_t>(kernels.panel_cols, y.cols - first);
    store.sums = sums;
    store.bias = bias.size() == 0 ? nullptr : bias.Row<float>(0) + first;
    store.add = mode == MatMulMode::kAdd;
    store.bf16 = y.dtype == DType::kBF16;
    store.y = static_cast<std::byte*>(y.data) + (row * y.stride + first) * SizeOf(y.dtype);
    store.y_row = y.stride;
    kernels.store(store);
  }
};

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_MATMUL_OUTPUT_H_
