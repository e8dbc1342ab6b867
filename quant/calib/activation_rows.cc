#include "quant/calib/activation_rows.h"

namespace quantmill {

ActivationRows::ActivationRows(Backend& backend, Exec& exec, DType dtype, int64_t rows,
                               int64_t cols, bool in_host_memory)
    : backend_(&backend),
      exec_(&exec),
      memory_(in_host_memory ? HostTensor(dtype, rows, cols) : backend.Empty(dtype, rows, cols)),
      view_(memory_.view()),
      in_host_memory_(in_host_memory) {}

void ActivationRows::SetCols(int64_t cols) {
  Check(cols <= memory_.cols(), "ActivationRows: more columns than there is memory for");
  view_ = {memory_.view().data, memory_.dtype(), memory_.rows(), cols, cols};
}

Matrix ActivationRows::Fresh(int64_t first, int64_t count, Workspace::Scope& scope) {
  if (!in_host_memory_) return view_.Rows(first, count);
  return scope.Take(view_.dtype, count, view_.cols);
}

Matrix ActivationRows::Read(int64_t first, int64_t count, Workspace::Scope& scope) {
  const Matrix rows = Fresh(first, count, scope);
  if (in_host_memory_) backend_->Upload(*exec_, view_.Rows(first, count), rows);
  return rows;
}

void ActivationRows::Store(int64_t first, ConstMatrix rows) {
  if (in_host_memory_) backend_->Download(*exec_, rows, view_.Rows(first, rows.rows));
}

void ActivationRows::Gather(std::span<const int32_t> rows, Matrix out) {
  if (!in_host_memory_) return backend_->GatherRows(*exec_, view_, rows, out);
  for (size_t begin = 0; begin < rows.size();) {
    size_t end = begin + 1;
    while (end < rows.size() && rows[end] == rows[end - 1] + 1) ++end;
    const auto count = static_cast<int64_t>(end - begin);
    backend_->Upload(*exec_, view_.Rows(rows[begin], count),
                     out.Rows(static_cast<int64_t>(begin), count));
    begin = end;
  }
}

}  // namespace quantmill
