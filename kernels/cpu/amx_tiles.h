// Products of BF16 pairs in the tile registers of AMX. Only for *_isa.cc sources (isa.h), and only
// where the instruction set has AMX.
//
// A block of 32 x 32 sums is held in four tiles; two tiles hold 32 rows of x, two 32 columns of w,
// 16 steps (32 inputs) at a time. An element's sum depends on how its steps are cut into sixteens
// alone, so never on the rows beside it.
#ifndef QUANTMILL_KERNELS_CPU_AMX_TILES_H_
#define QUANTMILL_KERNELS_CPU_AMX_TILES_H_

#include "kernels/cpu/simd.h"

namespace quantmill::cpu::QUANTMILL_ISA {

#if defined(__AMX_BF16__)

inline constexpr int kAmxSteps = 16;  // of one tile
inline constexpr int kAmxSide = 32;   // rows, columns of a block of sums

// Shapes of the tiles: sums 0 1 / 2 3, rows of x 4 / 5, columns of w 6 7. Given back at the end, so
// that nobody else finds them configured.
class AmxTiles {
 public:
  // rows: 1 .. 32, of x.
  explicit AmxTiles(int rows) {
    struct alignas(64) Config {
      uint8_t palette = 1;
      uint8_t start_row = 0;
      uint8_t reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    const int first = rows < 16 ? rows : 16;
    const int tile_rows[8] = {first, first,        rows - first, rows - first,
                              first, rows - first, 16,           16};
    for (int t = 0; t < 8; ++t) {
      if (tile_rows[t] == 0) continue;
      config.row_bytes[t] = 64;
      config.rows[t] = static_cast<uint8_t>(tile_rows[t]);
    }
    _tile_loadconfig(&config);
  }
  ~AmxTiles() { _tile_release(); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;
};

// 16 steps of the rows of x. Strides here and below in bytes. kTwo: more than 16 rows.
template <bool kTwo>
inline void AmxLoadRows(const char* x, int64_t x_row) {
  _tile_loadd(4, x, x_row);
  if constexpr (kTwo) _tile_loadd(5, x + 16 * x_row, x_row);
}
// 16 steps of the columns of w, [steps][columns].
inline void AmxLoadCols(const char* w, int64_t w_step) {
  _tile_loadd(6, w, w_step);
  _tile_loadd(7, w + 64, w_step);
}
// Adds the products of the rows and columns that were loaded last.
template <bool kTwo>
inline void AmxMultiply() {
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (kTwo) {
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

struct AmxOperands {
  const char* x;  // [rows][steps], 4 bytes a step
  int64_t x_row;
  const char* w;  // [steps][columns]
  int64_t w_step;
};

template <bool kTwo>
inline void AmxStep(const AmxOperands& o, int64_t step) {
  AmxLoadRows<kTwo>(o.x + step * 4, o.x_row);
  AmxLoadCols(o.w + step * o.w_step, o.w_step);
  AmxMultiply<kTwo>();
}

template <bool kTwo>
inline void AmxLoadSums(bool resume, const float* sums, int64_t row_bytes) {
  const char* at = reinterpret_cast<const char*>(sums);
  if (!resume) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kTwo) {
      _tile_zero(2);
      _tile_zero(3);
    }
    return;
  }
  _tile_loadd(0, at, row_bytes);
  _tile_loadd(1, at + 64, row_bytes);
  if constexpr (kTwo) {
    _tile_loadd(2, at + 16 * row_bytes, row_bytes);
    _tile_loadd(3, at + 16 * row_bytes + 64, row_bytes);
  }
}

template <bool kTwo>
inline void AmxStoreSums(float* sums, int64_t row_bytes) {
  char* at = reinterpret_cast<char*>(sums);
  _tile_stored(0, at, row_bytes);
  _tile_stored(1, at + 64, row_bytes);
  if constexpr (kTwo) {
    _tile_stored(2, at + 16 * row_bytes, row_bytes);
    _tile_stored(3, at + 16 * row_bytes + 64, row_bytes);
  }
}

// ---- F32 as BF16 ----

// F32 has 24 bits of mantissa, BF16 8: three of them, each rounding what the former left, hold an
// F32 number exactly (but for bits below the smallest normal number, which AMX takes as zero). Of
// the nine products of two such numbers, the six largest hold the product to within 2^-23.
inline constexpr int kAmxParts = 3;

struct Parts {
  Vec part[kAmxParts];  // BF16 numbers: the low halves of the lanes are zero
};

// NaN and infinities are in their first part alone. So are numbers past 255/256 of the largest,
// which become infinities.
inline Parts SplitF32(Vec x) {
  const __m512i high = _mm512_set1_epi32(-0x10000);
  const auto round = [high](Vec v) {  // to nearest even; a NaN may become an infinity
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF));
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_add_epi32(bits, up), high));
  };
  Parts parts;
  const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
  parts.part[0] = _mm512_mask_mov_ps(round(x), nan, Set1(__builtin_nanf("")));
  const Vec first = parts.part[0];
  const __mmask16 finite = _mm512_cmp_ps_mask(first - first, Zero(), _CMP_EQ_OQ);
  const Vec rest = _mm512_maskz_sub_ps(finite, x, first);
  parts.part[1] = round(rest);
  parts.part[2] = rest - parts.part[1];
  return parts;
}

#endif

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_AMX_TILES_H_
