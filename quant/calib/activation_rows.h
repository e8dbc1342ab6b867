// Activations of all calibration tokens, in the backend's memory or, where that is too small, in
// the host's.
#ifndef QUANTMILL_QUANT_CALIB_ACTIVATION_ROWS_H_
#define QUANTMILL_QUANT_CALIB_ACTIVATION_ROWS_H_

#include <cstdint>
#include <memory>
#include <span>

#include "kernels/ops.h"

namespace quantmill {

// [rows, cols] of one type, uninitialized; move-only. Ops run on some rows at a time:
//     rows = Read(first, count, scope);   (or Fresh, for rows that will be written whole)
//     ... ops that change `rows` ...
//     Store(first, rows);                 (if they did)
// In the backend's memory `rows` are the activations themselves, and nothing is copied; in the
// host's they are a copy, which Store brings back. The copy is in the scope's memory; or in one of
// two buffers that take turns: then the rows behind those that are read come, and what was stored
// leaves, on streams of their own, while ops run on these.
class ActivationRows {
 public:
  ActivationRows() = default;
  // In the backend's memory. Borrows both. Throws Error(kEnvironment) when memory does not suffice.
  ActivationRows(Backend& backend, Exec& exec, DType dtype, int64_t rows, int64_t cols);
  // In host memory. buffer_rows: the most that Read and Fresh are asked for; 0: without buffers.
  static ActivationRows OnHost(Backend& backend, Exec& exec, DType dtype, int64_t rows,
                               int64_t cols, int64_t buffer_rows);

  int64_t cols() const { return view_.cols; }
  // Uses the memory as [rows, cols], cols being at most as many as it was made with. What was there
  // is lost if that changes.
  void SetCols(int64_t cols);

  // [count, cols], backend memory, valid while the scope lives and until the next Read or Fresh.
  Matrix Read(int64_t first, int64_t count, Workspace::Scope& scope);
  Matrix Fresh(int64_t first, int64_t count, Workspace::Scope& scope);
  // rows: what Read or Fresh gave for `first`. Waits where it copies without buffers.
  void Store(int64_t first, ConstMatrix rows);

  // out[i] = row rows[i]: a copy, wherever they are. rows: each in [0, rows()), runs of neighbours
  // for the most part. out: [count, cols], backend memory.
  void Gather(std::span<const int32_t> rows, Matrix out);

 private:
  struct Range {
    int64_t first = 0;
    int64_t count = 0;
    friend bool operator==(const Range&, const Range&) = default;
    bool Overlaps(const Range& other) const {
      return first < other.first + other.count && other.first < first + count;
    }
  };

  // Two buffers, with a stream for each way.
  struct Buffers;
  struct BuffersDeleter {
    void operator()(Buffers* buffers) const;
  };

  // The buffer whose turn is `turn`, for `count` rows.
  Matrix Buffer(size_t turn, int64_t count) const;
  // Lets rows come to the buffer whose turn is next.
  void Fetch(const Range& range);
  // That buffer may be written by ops, whatever was on its way there.
  void ForgetFetched();

  Backend* backend_ = nullptr;
  Exec* exec_ = nullptr;
  bool on_host_ = false;
  Tensor memory_;
  Matrix view_;  // of memory_, with as many columns as are used
  std::unique_ptr<Buffers, BuffersDeleter> buffers_;  // in host memory, or null
  size_t turn_ = 0;                                   // of the buffer that was given last
  Range fetched_;  // what is in the other one, or on its way there; may be empty
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_CALIB_ACTIVATION_ROWS_H_
