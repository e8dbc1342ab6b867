// GatherRows and ScatterAdd of the reference backend.
#include <cstring>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"

namespace quantmill::reference {

void ReferenceBackend::GatherRows(Exec&, ConstMatrix x, std::span<const int32_t> rows, Matrix out) {
  CheckGatherRows(x, rows, out);
  for (int64_t i = 0; i < out.rows; ++i) {
    const int32_t row = rows[static_cast<size_t>(i)];
    Check(row >= 0 && row < x.rows, "GatherRows: no such row");
    std::memcpy(out.Rows(i, 1).data, x.Rows(row, 1).data,
                static_cast<size_t>(x.cols * SizeOf(x.dtype)));
  }
}

void ReferenceBackend::ScatterAdd(Exec&, ConstMatrix x, std::span<const int32_t> rows,
                                  std::span<const float> factors, Matrix y) {
  CheckScatterAdd(x, rows, factors, y);
  for (int64_t i = 0; i < x.rows; ++i) {
    const auto at = static_cast<size_t>(i);
    Check(rows[at] >= 0 && rows[at] < y.rows, "ScatterAdd: no such row");
    const double factor = factors[at];
    auto* to = y.Row<float>(rows[at]);
    for (int64_t c = 0; c < x.cols; ++c) {
      to[c] = static_cast<float>(to[c] + factor * static_cast<double>(x.Row<float>(i)[c]));
    }
  }
}

}  // namespace quantmill::reference
