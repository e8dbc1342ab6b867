// GatherRows and ScatterAdd of the cpu backend: they move memory, so that plain loops do.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {
namespace {

constexpr int64_t kTaskElements = int64_t{1} << 15;

// Calls row(i) for i in [0, rows), in tasks of a fixed number of elements.
template <typename Row>
void ForRows(Exec& exec, int64_t rows, int64_t cols, Row row) {
  if (rows == 0 || cols == 0) return;
  const int64_t step = std::max<int64_t>(1, kTaskElements / cols);
  PoolOf(exec).ParallelFor((rows + step - 1) / step, [&](int64_t task, int) {
    const int64_t end = std::min(rows, (task + 1) * step);
    for (int64_t i = task * step; i < end; ++i) row(i);
  });
}

}  // namespace

void CpuBackend::GatherRows(Exec& exec, ConstMatrix x, std::span<const int32_t> rows, Matrix out) {
  CheckGatherRows(x, rows, out);
  const auto bytes = static_cast<size_t>(x.cols * SizeOf(x.dtype));
  ForRows(exec, out.rows, out.cols, [&](int64_t i) {
    std::memcpy(out.Rows(i, 1).data, x.Rows(rows[static_cast<size_t>(i)], 1).data, bytes);
  });
}

void CpuBackend::ScatterAdd(Exec& exec, ConstMatrix x, std::span<const int32_t> rows,
                            std::span<const float> factors, Matrix y) {
  CheckScatterAdd(x, rows, factors, y);
  ForRows(exec, x.rows, x.cols, [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    const float factor = factors[at];
    const auto* from = x.Row<float>(i);
    auto* to = y.Row<float>(rows[at]);
    for (int64_t c = 0; c < x.cols; ++c) to[c] += factor * from[c];
  });
}

}  // namespace quantmill::cpu
