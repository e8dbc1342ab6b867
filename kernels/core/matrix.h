// Device-neutral matrices. A view borrows, a Tensor owns; who may dereference `data` is decided by
// the backend that allocated it (host memory for cpu, device memory for cuda).
#ifndef QUANTMILL_KERNELS_CORE_MATRIX_H_
#define QUANTMILL_KERNELS_CORE_MATRIX_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <utility>

#include "kernels/core/dtype.h"
#include "kernels/core/error.h"

namespace quantmill {

// A borrowed row-major matrix [rows, cols]; element (r, c) is at data + (r * stride + c) elements,
// stride >= cols. A vector is a matrix of one row. Copying copies the reference.
struct ConstMatrix {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  template <typename T>
  const T* Row(int64_t r) const {
    DCheck(DTypeOf<T>::kValue == dtype, "element type differs from the view's");
    return static_cast<const T*>(data) + r * stride;
  }
  int64_t size() const { return rows * cols; }
  bool contiguous() const { return stride == cols || rows <= 1; }

  // Rows [begin, begin + count).
  ConstMatrix Rows(int64_t begin, int64_t count) const {
    DCheck(begin >= 0 && count >= 0 && begin + count <= rows, "row range outside the matrix");
    return {static_cast<const std::byte*>(data) + begin * stride * SizeOf(dtype), dtype, count,
            cols, stride};
  }
  // Columns [begin, begin + count).
  ConstMatrix Cols(int64_t begin, int64_t count) const {
    DCheck(begin >= 0 && count >= 0 && begin + count <= cols, "column range outside the matrix");
    return {static_cast<const std::byte*>(data) + begin * SizeOf(dtype), dtype, rows, count,
            stride};
  }
};

struct Matrix {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0;

  template <typename T>
  T* Row(int64_t r) const {
    DCheck(DTypeOf<T>::kValue == dtype, "element type differs from the view's");
    return static_cast<T*>(data) + r * stride;
  }
  int64_t size() const { return rows * cols; }
  bool contiguous() const { return stride == cols || rows <= 1; }

  Matrix Rows(int64_t begin, int64_t count) const {
    DCheck(begin >= 0 && count >= 0 && begin + count <= rows, "row range outside the matrix");
    return {static_cast<std::byte*>(data) + begin * stride * SizeOf(dtype), dtype, count, cols,
            stride};
  }
  Matrix Cols(int64_t begin, int64_t count) const {
    DCheck(begin >= 0 && count >= 0 && begin + count <= cols, "column range outside the matrix");
    return {static_cast<std::byte*>(data) + begin * SizeOf(dtype), dtype, rows, count, stride};
  }
  // The same memory as [rows, cols]; needs a contiguous view of that many elements.
  Matrix Reshaped(int64_t new_rows, int64_t new_cols) const {
    Check(contiguous() && new_rows * new_cols == size(), "Reshaped: sizes differ");
    return {data, dtype, new_rows, new_cols, new_cols};
  }
  operator ConstMatrix() const {  // NOLINT(google-explicit-constructor): a view widens to const
    return {data, dtype, rows, cols, stride};
  }
};

// Views of plain host arrays.
template <typename T>
ConstMatrix ViewOf(const T* data, int64_t rows, int64_t cols) {
  return {data, DTypeOf<T>::kValue, rows, cols, cols};
}
template <typename T>
Matrix MutableViewOf(T* data, int64_t rows, int64_t cols) {
  return {data, DTypeOf<T>::kValue, rows, cols, cols};
}

// An owned contiguous matrix, 64-byte aligned. Move-only; made by Backend::Empty or HostTensor.
// Elements are uninitialized.
class Tensor {
 public:
  using Deleter = std::function<void(void*)>;

  Tensor() = default;
  Tensor(Matrix view, Deleter deleter) : view_(view), deleter_(std::move(deleter)) {}
  Tensor(Tensor&& other) noexcept { *this = std::move(other); }
  Tensor& operator=(Tensor&& other) noexcept {
    if (this != &other) {
      Reset();
      view_ = std::exchange(other.view_, Matrix{});
      deleter_ = std::exchange(other.deleter_, nullptr);
    }
    return *this;
  }
  Tensor(const Tensor&) = delete;
  Tensor& operator=(const Tensor&) = delete;
  ~Tensor() { Reset(); }

  Matrix view() const { return view_; }
  operator Matrix() const { return view_; }       // NOLINT(google-explicit-constructor)
  operator ConstMatrix() const { return view_; }  // NOLINT(google-explicit-constructor)
  DType dtype() const { return view_.dtype; }
  int64_t rows() const { return view_.rows; }
  int64_t cols() const { return view_.cols; }
  int64_t bytes() const { return view_.size() * SizeOf(view_.dtype); }
  bool empty() const { return view_.data == nullptr; }
  template <typename T>
  T* Row(int64_t r) const {
    return view_.Row<T>(r);
  }

 private:
  void Reset() {
    if (deleter_) deleter_(view_.data);
    view_ = {};
    deleter_ = nullptr;
  }

  Matrix view_;
  Deleter deleter_;
};

// Row `row` of an F32, F16 or BF16 matrix in host memory, as floats (exact). to: [m.cols].
void WidenRow(ConstMatrix m, int64_t row, float* to);

// Host memory. Throws Error(kEnvironment) naming the size when the system has none left.
// Large blocks are returned to the system when freed (they are mapped, not taken from the heap).
Tensor HostTensor(DType dtype, int64_t rows, int64_t cols);

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_CORE_MATRIX_H_
