// Derived tolerances, and comparisons that report the worst element. Integers compare exactly; a
// float compares against a bound that follows from how it was summed and stored.
#ifndef QUANTMILL_TESTS_SUPPORT_TOLERANCE_H_
#define QUANTMILL_TESTS_SUPPORT_TOLERANCE_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>

#include "kernels/core/matrix.h"

namespace quantmill::test {

// Largest relative error of one rounding to nearest (half the spacing at 1).
inline double UnitRoundoff(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return 0x1p-53;
    case DType::kF32:
      return 0x1p-24;
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
    default:
      Check(false, "UnitRoundoff: not a float type");
      return 0;
  }
}

// |fl(a . b) - a . b| <= k * eps * sum |a_i * b_i|; one more rounding to store the result.
// k: terms of the sum; count an addition to what was there (kAdd, bias) as one more term and its
// magnitude as part of abs_dot. A product that is itself rounded adds one to k.
inline double DotBound(int64_t k, double abs_dot, double want, double eps_acc, double eps_out) {
  const double acc = static_cast<double>(k) * eps_acc * abs_dot;
  // The smallest normal covers subnormal intermediate results, which round absolutely.
  return acc + eps_out * (std::abs(want) + acc) + 0x1p-126;
}

// Element (r, c) of a dense float matrix in host memory.
inline double At(ConstMatrix m, int64_t r, int64_t c) {
  switch (m.dtype) {
    case DType::kF64:
      return m.Row<double>(r)[c];
    case DType::kF32:
      return m.Row<float>(r)[c];
    case DType::kF16:
      return ToFloat(m.Row<F16>(r)[c]);
    case DType::kBF16:
      return ToFloat(m.Row<BF16>(r)[c]);
    case DType::kI8:
      return m.Row<int8_t>(r)[c];
    case DType::kI32:
      return m.Row<int32_t>(r)[c];
    default:
      Check(false, "At: unsupported type");
      return 0;
  }
}

// Absolute tolerance of element (r, c), given what was wanted there.
using Bound = std::function<double(int64_t r, int64_t c, double want)>;

inline Bound Exactly() {
  return [](int64_t, int64_t, double) { return 0.0; };
}

// got and want lie in host memory. NaN equals NaN alone, an infinity only itself. On failure:
// how many elements are out of bounds, and the one furthest out.
inline testing::AssertionResult Within(ConstMatrix got, ConstMatrix want, const Bound& bound) {
  if (got.rows != want.rows || got.cols != want.cols) {
    return testing::AssertionFailure() << "shape [" << got.rows << ", " << got.cols << "], wanted ["
                                       << want.rows << ", " << want.cols << "]";
  }
  struct Worst {
    int64_t r = -1, c = -1;
    double got = 0, want = 0, bound = 0, excess = -1;
  } worst;
  int64_t bad = 0;
  for (int64_t r = 0; r < got.rows; ++r) {
    for (int64_t c = 0; c < got.cols; ++c) {
      const double g = At(got, r, c);
      const double w = At(want, r, c);
      if (std::isnan(g) && std::isnan(w)) continue;
      if (g == w) continue;
      const double limit = bound(r, c, w);
      const double error = std::abs(g - w);
      if (error <= limit) continue;  // false for NaN, and for an infinity that is not wanted
      ++bad;
      const double excess =
          std::isfinite(error) && limit > 0 ? error / limit : std::numeric_limits<double>::max();
      if (excess > worst.excess) worst = {r, c, g, w, limit, excess};
    }
  }
  if (bad == 0) return testing::AssertionSuccess();
  return testing::AssertionFailure()
         << bad << " of " << got.size() << " elements out of bounds; worst at [" << worst.r << ", "
         << worst.c << "]: got " << worst.got << ", wanted " << worst.want << ", error "
         << std::abs(worst.got - worst.want) << ", bound " << worst.bound;
}

// Bit for bit; reports the first difference.
inline testing::AssertionResult SameBits(ConstMatrix got, ConstMatrix want) {
  if (got.rows != want.rows || got.cols != want.cols || got.dtype != want.dtype) {
    return testing::AssertionFailure()
           << NameOf(got.dtype) << " [" << got.rows << ", " << got.cols << "], wanted "
           << NameOf(want.dtype) << " [" << want.rows << ", " << want.cols << "]";
  }
  const int64_t size = SizeOf(got.dtype);
  for (int64_t r = 0; r < got.rows; ++r) {
    const auto* g = static_cast<const std::byte*>(got.data) + r * got.stride * size;
    const auto* w = static_cast<const std::byte*>(want.data) + r * want.stride * size;
    for (int64_t c = 0; c < got.cols; ++c) {
      if (std::memcmp(g + c * size, w + c * size, static_cast<size_t>(size)) == 0) continue;
      return testing::AssertionFailure() << "first difference at [" << r << ", " << c << "]: got "
                                         << At(got, r, c) << ", wanted " << At(want, r, c);
    }
  }
  return testing::AssertionSuccess();
}

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_SUPPORT_TOLERANCE_H_
