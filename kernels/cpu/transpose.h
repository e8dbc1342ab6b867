// The transpose of a matrix of 4-byte elements. Only for *_isa.cc sources (isa.h).
#ifndef QUANTMILL_KERNELS_CPU_TRANSPOSE_H_
#define QUANTMILL_KERNELS_CPU_TRANSPOSE_H_

#include <utility>

#include "kernels/cpu/simd.h"

namespace quantmill::cpu::QUANTMILL_ISA {

constexpr int64_t Least(int64_t a, int64_t b) { return a < b ? a : b; }

// Half of the perfect shuffle of two vectors: a0 b0 a1 b1 ..., from position kFrom on.
template <int kFrom, int... kAt>
inline Vec Interleave(Vec a, Vec b, std::integer_sequence<int, kAt...>) {
  return __builtin_shufflevector(a, b, ((kFrom + kAt) / 2 + (kAt % 2) * kLanes)...);
}
template <int kFrom>
inline Vec Interleave(Vec a, Vec b) {
  return Interleave<kFrom>(a, b, std::make_integer_sequence<int, kLanes>());
}

// dst[j][i] = src[i][j] for one kLanes x kLanes block: log2(kLanes) rounds of perfect shuffles.
inline void TransposeBlock(const float* src, int64_t lds, float* dst, int64_t ldd) {
  Vec x[kLanes];
  Vec y[kLanes];
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) x[i] = Load(src + i * lds);
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      y[2 * i] = Interleave<0>(x[i], x[i + kLanes / 2]);
      y[2 * i + 1] = Interleave<kLanes>(x[i], x[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) x[i] = y[i];
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) Store(dst + i * ldd, x[i]);
}

// dst[j * ldd + i] = src[i * lds + j] for i < rows, j < cols.
inline void Transpose(const float* src, int64_t lds, int64_t rows, int64_t cols, float* dst,
                      int64_t ldd) {
  for (int64_t i = 0; i < rows; i += kLanes) {
    for (int64_t j = 0; j < cols; j += kLanes) {
      if (i + kLanes <= rows && j + kLanes <= cols) {
        TransposeBlock(src + i * lds + j, lds, dst + j * ldd + i, ldd);
        continue;
      }
      for (int64_t r = i; r < Least(rows, i + kLanes); ++r) {
        for (int64_t c = j; c < Least(cols, j + kLanes); ++c) dst[c * ldd + r] = src[r * lds + c];
      }
    }
  }
}

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_TRANSPOSE_H_
