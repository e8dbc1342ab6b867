// Random numbers of tests: the same on every platform and standard library.
#ifndef QUANTMILL_TESTS_SUPPORT_RANDOM_H_
#define QUANTMILL_TESTS_SUPPORT_RANDOM_H_

#include <cmath>
#include <cstdint>
#include <numbers>

#include "kernels/core/matrix.h"

namespace quantmill::test {

// SplitMix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t Bits() {
    state_ += 0x9E3779B97F4A7C15u;
    uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }
  // In [0, 1).
  double Uniform() { return static_cast<double>(Bits() >> 11) * 0x1p-53; }
  double Uniform(double lo, double hi) { return lo + (hi - lo) * Uniform(); }
  // In [lo, hi].
  int64_t Int(int64_t lo, int64_t hi) {
    return lo + static_cast<int64_t>(Bits() % static_cast<uint64_t>(hi - lo + 1));
  }
  // Mean 0, deviation 1 (Box-Muller).
  double Normal() {
    const double radius = std::sqrt(-2 * std::log(1 - Uniform()));
    return radius * std::cos(2 * std::numbers::pi * Uniform());
  }

 private:
  uint64_t state_;
};

// Stores x into element (r, c), rounded to the matrix's type.
inline void Set(Matrix m, int64_t r, int64_t c, double x) {
  const auto value = static_cast<float>(x);
  switch (m.dtype) {
    case DType::kF64:
      m.Row<double>(r)[c] = x;
      return;
    case DType::kF32:
      m.Row<float>(r)[c] = value;
      return;
    case DType::kF16:
      m.Row<F16>(r)[c] = ToF16(value);
      return;
    case DType::kBF16:
      m.Row<BF16>(r)[c] = ToBF16(value);
      return;
    case DType::kI8:
      m.Row<int8_t>(r)[c] = static_cast<int8_t>(x);
      return;
    default:
      Check(false, "Set: unsupported type");
  }
}

inline void Fill(Matrix m, double x) {
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) Set(m, r, c, x);
  }
}

// Normal values of deviation `scale`, rounded to the matrix's type.
inline void FillNormal(Random& random, double scale, Matrix m) {
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) Set(m, r, c, scale * random.Normal());
  }
}

// A host matrix of normal values.
inline Tensor NormalMatrix(Random& random, DType dtype, int64_t rows, int64_t cols,
                           double scale = 1) {
  Tensor m = HostTensor(dtype, rows, cols);
  FillNormal(random, scale, m);
  return m;
}

// The same values in another type (rounded).
inline Tensor Converted(ConstMatrix m, DType dtype) {
  Tensor out = HostTensor(dtype, m.rows, m.cols);
  for (int64_t r = 0; r < m.rows; ++r) {
    for (int64_t c = 0; c < m.cols; ++c) {
      double x = 0;
      if (m.dtype == DType::kF32) x = m.Row<float>(r)[c];
      if (m.dtype == DType::kF16) x = ToFloat(m.Row<F16>(r)[c]);
      if (m.dtype == DType::kBF16) x = ToFloat(m.Row<BF16>(r)[c]);
      Set(out, r, c, x);
    }
  }
  return out;
}

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_SUPPORT_RANDOM_H_
