// The register-blocked F32 tile product that the solvers are built from. Only for *_isa.cc sources
// (isa.h).
//
// A "strip" is a [depth, kTileCols] contiguous matrix: one vector pair per reduction step. A
// "packed" left operand is [row blocks][depth][kTileRows]: the kTileRows factors of a step lie side
// by side. Both are padded with zeros, so that the inner loop knows no edges.
#ifndef QUANTMILL_KERNELS_CPU_TILE_GEMM_H_
#define QUANTMILL_KERNELS_CPU_TILE_GEMM_H_

#include "kernels/cpu/simd.h"
#include "kernels/cpu/transpose.h"

namespace quantmill::cpu::QUANTMILL_ISA {

// 16 accumulators of 32 registers, or 8 of 16: enough to hide the latency of the FMA (4 cycles at
// two a cycle), few enough to leave room for operands.
#if defined(__AVX512F__)
inline constexpr int64_t kTileRows = 8;
#else
inline constexpr int64_t kTileRows = 4;
#endif
inline constexpr int64_t kTileVecs = 2;
inline constexpr int64_t kTileCols = kTileVecs * kLanes;

constexpr int64_t RoundUp(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

// x in all lanes. Subtracting 0 leaves every float as it is, so the compiler drops it (adding 0
// would turn -0 into 0 and has to stay).
inline Vec Broadcast(float x) { return x - Vec{}; }

struct Tile {
  Vec v[kTileRows][kTileVecs];
};

// result[r][c] = sum_k a(r, k) * b[k * ldb + c], k ascending. a(r, k) is a[k * lda + r], or
// a[r * lda + k] when kRowMajor.
template <bool kRowMajor>
[[gnu::always_inline]] inline Tile TileProduct(const float* a, int64_t lda, const float* b,
                                               int64_t ldb, int64_t depth) {
  Tile sum = {};
  for (int64_t k = 0; k < depth; ++k) {
    const Vec b0 = Load(b + k * ldb);
    const Vec b1 = Load(b + k * ldb + kLanes);
#pragma GCC unroll 8
    for (int64_t r = 0; r < kTileRows; ++r) {
      const Vec factor = Broadcast(kRowMajor ? a[r * lda + k] : a[k * lda + r]);
      sum.v[r][0] = Fma(factor, b0, sum.v[r][0]);
      sum.v[r][1] = Fma(factor, b1, sum.v[r][1]);
    }
  }
  return sum;
}

// c[r * ldc + j] -= the product, for the whole tile.
template <bool kRowMajor>
[[gnu::always_inline]] inline void SubtractProduct(const float* a, int64_t lda, const float* b,
                                                   int64_t ldb, int64_t depth, float* c,
                                                   int64_t ldc) {
  const Tile sum = TileProduct<kRowMajor>(a, lda, b, ldb, depth);
#pragma GCC unroll 8
  for (int64_t r = 0; r < kTileRows; ++r) {
    Store(c + r * ldc, Load(c + r * ldc) - sum.v[r][0]);
    Store(c + r * ldc + kLanes, Load(c + r * ldc + kLanes) - sum.v[r][1]);
  }
}

// Floats from one row block to the next of PackColumns: a line more than the block, as the blocks
// are written side by side and a stride of 4096 bytes would put all of them into one cache set.
constexpr int64_t PackedStride(int64_t depth) { return depth * kTileRows + 16; }

// packed[block * PackedStride + k * kTileRows + r] = src[k][block * kTileRows + r] for k < depth
// and cols columns, the last block padded with zeros.
inline void PackColumns(const float* src, int64_t lds, int64_t depth, int64_t cols, float* packed) {
  const int64_t blocks = cols / kTileRows;
  const int64_t stride = PackedStride(depth);
  for (int64_t k = 0; k < depth; ++k) {
    const float* row = src + k * lds;
    float* to = packed + k * kTileRows;
    for (int64_t b = 0; b < blocks; ++b) {
      std::memcpy(to + b * stride, row + b * kTileRows, sizeof(float) * kTileRows);
    }
    for (int64_t c = blocks * kTileRows; c < RoundUp(cols, kTileRows); ++c) {
      to[blocks * stride + c % kTileRows] = c < cols ? row[c] : 0.0f;
    }
  }
}

// The code of RoundToGrid (ops.h), as a float: clamp(rint(w / scale) + zero, lo, hi). The quotient
// is clamped first, far outside every code, because Round takes |x| < 2^22 only; NaN stays.
inline Vec CodeOf(Vec w, Vec scale, Vec zero, Vec lo, Vec hi) {
  const Vec limit = Broadcast(1024.0f);
  const Vec quotient = Min(Max(w / scale, -limit), limit);
  return Min(Max(Round(quotient) + zero, lo), hi);
}

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_TILE_GEMM_H_
