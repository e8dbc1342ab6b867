// The inner loop that MatMul and AddGram share: a tile of sums held in registers. Only for
// *_isa.cc sources (isa.h).
//
//   sums[r, c] (+)= sum_k x[r, k] * w[k, c]
//
// Each element is one chain of multiply-adds with k ascending, and a later call can resume it from
// memory. So the bits depend neither on how rows are grouped into tiles nor on how k is blocked.
#ifndef QUANTMILL_KERNELS_CPU_DOT_TILE_H_
#define QUANTMILL_KERNELS_CPU_DOT_TILE_H_

#include "kernels/cpu/simd.h"

namespace quantmill::cpu::QUANTMILL_ISA {

// Vectors and rows of a tile fill the registers: with 32 of them 24 sums, 4 weights and one
// broadcast; with 16, 12 sums. Measured equal to 12 x 2 and 8 x 3 at 98 % of peak on Zen 5, and
// the widest tile has the most independent chains when there is one row.
#if defined(__AVX512F__)
inline constexpr int kTileVectors = 4;
#else
inline constexpr int kTileVectors = 2;
#endif
inline constexpr int kTileRows = 6;
inline constexpr int kTileCols = kTileVectors * kLanes;

// How one step of k is stored and multiplied. Both kinds take 4 bytes per column and step, so the
// addresses below are the same.
struct StepF32 {  // one k: a float
  using Weight = Vec;
  static Weight LoadWeight(const float* p) { return Load(p); }
  static Vec MulAdd(const float* x, Weight w, Vec sum) { return Fma(Set1(*x), w, sum); }
};
#if defined(__AVX512BF16__)
// Words 0-15 and 16-31, as cvtne2ps leaves two vectors, as pairs: lane i has words i and 16 + i.
inline __m512i Interleaved(__m512i words) {
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, words);
}

struct StepPairs {  // two k: a pair of BF16; subnormal numbers count as zero
  using Weight = __m512bh;
  static Weight LoadWeight(const float* p) {
    return reinterpret_cast<__m512bh>(_mm512_loadu_si512(p));
  }
  static Vec MulAdd(const float* x, Weight w, Vec sum) {
    int32_t pair;
    std::memcpy(&pair, x, 4);
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)), w);
  }
};
#endif

// One tile of kRows x (kVectors * kLanes) sums. Row r, step k of x is at x[r * x_row + k * kXStep]
// (4-byte units); step k of w at w[k * kTileCols]; row r of sums at sums[r * kTileCols].
// A step also fetches one cache line of `ahead` into L2: the next panel, which would otherwise
// arrive at the speed of its first use.
template <typename Step, int kRows, int kVectors, int kXStep>
inline void RunTile(const float* x, int64_t x_row, const float* w, int64_t steps, bool resume,
                    const char* ahead, float* sums) {
  Vec sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = resume ? Load(sums + r * kTileCols + v * kLanes) : Zero();
    }
  }
  for (int64_t k = 0; k < steps; ++k) {
    __builtin_prefetch(ahead + k * 64, 0, 2);
    typename Step::Weight weight[kVectors];
    for (int v = 0; v < kVectors; ++v) {
      weight[v] = Step::LoadWeight(w + k * kTileCols + v * kLanes);
    }
    for (int r = 0; r < kRows; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = Step::MulAdd(x + r * x_row + k * kXStep, weight[v], sum[r][v]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) Store(sums + r * kTileCols + v * kLanes, sum[r][v]);
  }
}

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_DOT_TILE_H_
