// Activations of all calibration tokens, in the backend's memory or, where that is too small, in
// the host's.
#ifndef QUANTMILL_QUANT_CALIB_ACTIVATION_ROWS_H_
#define QUANTMILL_QUANT_CALIB_ACTIVATION_ROWS_H_

#include <cstdint>
#include <span>

#include "kernels/ops.h"

namespace quantmill {

// [rows, cols] of one type, uninitialized; move-only. Ops run on some rows at a time:
//     rows = Read(first, count, scope);   (or Fresh, for rows that will be written whole)
//     ... ops that change `rows` ...
//     Store(first, rows);                 (if they did)
// In the backend's memory `rows` are the activations themselves, and nothing is copied; in the
// host's they are a copy in the scope's memory, which Store brings back.
class ActivationRows {
 public:
  ActivationRows() = default;
  // Borrows both. Throws Error(kEnvironment) when memory does not suffice.
  ActivationRows(Backend& backend, Exec& exec, DType dtype, int64_t rows, int64_t cols,
                 bool in_host_memory);

  int64_t cols() const { return view_.cols; }
  // Uses the memory as [rows, cols], cols being at most as many as it was made with. What was there
  // is lost if that changes.
  void SetCols(int64_t cols);

  // [count, cols], backend memory, valid while the scope lives.
  Matrix Read(int64_t first, int64_t count, Workspace::Scope& scope);
  Matrix Fresh(int64_t first, int64_t count, Workspace::Scope& scope);
  // rows: what Read or Fresh gave for `first`. Waits where it copies.
  void Store(int64_t first, ConstMatrix rows);

  // out[i] = row rows[i]: a copy, wherever they are. rows: each in [0, rows()), runs of neighbours
  // for the most part. out: [count, cols], backend memory.
  void Gather(std::span<const int32_t> rows, Matrix out);

 private:
  Backend* backend_ = nullptr;
  Exec* exec_ = nullptr;
  Tensor memory_;
  Matrix view_;  // of memory_, with as many columns as are used
  bool in_host_memory_ = false;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_CALIB_ACTIVATION_ROWS_H_
