#include "quant/calib/activation_rows.h"

#include <algorithm>

#include "kernels/own_exec.h"

namespace quantmill {

struct ActivationRows::Buffers {
  Buffers(Backend& backend, int64_t rows, int64_t row_bytes)
      : memory{backend.Empty(DType::kU8, rows, row_bytes),
               backend.Empty(DType::kU8, rows, row_bytes)},
        in(backend),
        out(backend) {}
  ~Buffers() {
    in.stream().Synchronize();
    out.stream().Synchronize();
  }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;

  Tensor memory[2];  // U8
  OwnExec in;
  OwnExec out;
};

void ActivationRows::BuffersDeleter::operator()(Buffers* buffers) const { delete buffers; }

ActivationRows::ActivationRows(Backend& backend, Exec& exec, DType dtype, int64_t rows,
                               int64_t cols)
    : backend_(&backend),
      exec_(&exec),
      memory_(backend.Empty(dtype, rows, cols)),
      view_(memory_.view()) {}

ActivationRows ActivationRows::OnHost(Backend& backend, Exec& exec, DType dtype, int64_t rows,
                                      int64_t cols, int64_t buffer_rows) {
  ActivationRows made;
  made.backend_ = &backend;
  made.exec_ = &exec;
  made.on_host_ = true;
  made.memory_ = backend.EmptyOnHost(dtype, rows, cols);
  made.view_ = made.memory_.view();
  if (buffer_rows > 0) made.buffers_.reset(new Buffers(backend, buffer_rows, cols * SizeOf(dtype)));
  return made;
}

void ActivationRows::SetCols(int64_t cols) {
  Check(cols <= memory_.cols(), "ActivationRows: more columns than there is memory for");
  if (cols != view_.cols) ForgetFetched();
  view_ = {memory_.view().data, memory_.dtype(), memory_.rows(), cols, cols};
}

Matrix ActivationRows::Buffer(size_t turn, int64_t count) const {
  const Tensor& memory = buffers_->memory[turn];
  Check(count <= memory.rows(), "ActivationRows: more rows than a buffer has");
  return {memory.view().data, view_.dtype, count, view_.cols, view_.cols};
}

void ActivationRows::Fetch(const Range& range) {
  fetched_ = range;
  if (range.count == 0) return;
  Exec& in = buffers_->in.exec();
  in.stream.RunAfter(exec_->stream);  // which has used the buffer
  in.stream.RunAfter(buffers_->out.stream());
  backend_->Upload(in, view_.Rows(range.first, range.count), Buffer(1 - turn_, range.count));
}

void ActivationRows::ForgetFetched() {
  if (fetched_.count > 0) exec_->stream.RunAfter(buffers_->in.stream());
  fetched_ = {};
}

Matrix ActivationRows::Fresh(int64_t first, int64_t count, Workspace::Scope& scope) {
  if (!on_host_) return view_.Rows(first, count);
  if (buffers_ == nullptr) return scope.Take(view_.dtype, count, view_.cols);
  ForgetFetched();
  turn_ = 1 - turn_;
  return Buffer(turn_, count);
}

Matrix ActivationRows::Read(int64_t first, int64_t count, Workspace::Scope& scope) {
  if (buffers_ == nullptr) {
    const Matrix rows = Fresh(first, count, scope);
    if (on_host_) backend_->Upload(*exec_, view_.Rows(first, count), rows);
    return rows;
  }
  if (fetched_ != Range{first, count}) Fetch({first, count});
  exec_->stream.RunAfter(buffers_->in.stream());
  turn_ = 1 - turn_;
  const int64_t next = first + count;
  Fetch({next, std::min(count, view_.rows - next)});
  return Buffer(turn_, count);
}

void ActivationRows::Store(int64_t first, ConstMatrix rows) {
  if (!on_host_) return;
  const Matrix host = view_.Rows(first, rows.rows);
  if (buffers_ == nullptr) return backend_->Download(*exec_, rows, host);
  if (fetched_.Overlaps({first, rows.rows})) ForgetFetched();
  Exec& out = buffers_->out.exec();
  // Ops that follow write the other buffer, which leaves now at the latest; not for this one do
  // they wait.
  exec_->stream.RunAfter(out.stream);
  out.stream.RunAfter(exec_->stream);
  backend_->DownloadLater(out, rows, host);
}

void ActivationRows::Gather(std::span<const int32_t> rows, Matrix out) {
  if (!on_host_) return backend_->GatherRows(*exec_, view_, rows, out);
  if (buffers_ != nullptr) exec_->stream.RunAfter(buffers_->out.stream());
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
