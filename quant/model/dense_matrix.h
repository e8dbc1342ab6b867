// The weight of a linear as arithmetic wants it, however the file has it.
#ifndef QUANTMILL_QUANT_MODEL_DENSE_MATRIX_H_
#define QUANTMILL_QUANT_MODEL_DENSE_MATRIX_H_

#include "kernels/core/matrix.h"

namespace quantmill {

// [rows, cols] of any dense type becomes [cols, rows] of the same, in host memory.
Tensor Transposed(ConstMatrix matrix);

// [out, in] in host memory: a view of the mapped file, or a copy of what is stored transposed.
// Move-only.
class DenseMatrix {
 public:
  // stored: alive while this is, unless `transposed`.
  DenseMatrix(ConstMatrix stored, bool transposed)
      : copy_(transposed ? Transposed(stored) : Tensor()), view_(transposed ? copy_ : stored) {}

  const ConstMatrix& view() const { return view_; }
  operator ConstMatrix() const& { return view_; }  // NOLINT(google-explicit-constructor): it is one
  operator ConstMatrix() const&& = delete;  // NOLINT(google-explicit-constructor): would dangle

 private:
  Tensor copy_;
  ConstMatrix view_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_DENSE_MATRIX_H_
