// Products of BF16 pairs in the tile registers of AMX. Only for *_isa.cc sources (isa.h), and only
// where the instruction set has AMX.
//
// A block of 32 x 32 sums is held in four tiles; two tiles hold 32 rows of x, two 32 columns of w,
// 16 steps (32 inputs) at a time. An element's sum depends on how its steps are cut into sixteens
// alone, so never on the rows beside it.
#ifndef QUANTMILL_KERNELS_CPU_AMX_TILES_H_
#define QUANTMILL_KERNELS_CPU_AMX_TILES_H_

#include "kernels/cpu/dot_tile.h"

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

// Arithmetic that takes subnormal numbers as zero and gives none, as AMX does it, while this lives.
// What is called in its place must not be inlined, or it may move out of there.
class NoSubnormals {
 public:
  NoSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlushToZero | kZeroInputs); }
  ~NoSubnormals() { _mm_setcsr(before_); }
  NoSubnormals(const NoSubnormals&) = delete;
  NoSubnormals& operator=(const NoSubnormals&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 0x8000;
  static constexpr unsigned kZeroInputs = 0x40;
  unsigned before_;
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

// Where the parts of both factors are; strides in bytes.
struct AmxPartOperands {
  AmxOperands first;  // part 0 of 16 steps
  int64_t x_part;     // to the next part
  int64_t w_part;
};

// Adds 16 steps of x, of three parts, times w, of kWParts (numbers of at most 8, 16 or 24 bits):
// all products of parts that F32 can tell from the whole.
template <int kWParts, bool kTwo>
inline void AmxAddParts(const AmxPartOperands& o) {
  static_assert(kWParts >= 1 && kWParts <= kAmxParts);
  const auto rows = [&o](int part) {
    AmxLoadRows<kTwo>(o.first.x + part * o.x_part, o.first.x_row);
  };
  const auto cols = [&o](int part) { AmxLoadCols(o.first.w + part * o.w_part, o.first.w_step); };
  rows(0);
  cols(0);
  AmxMultiply<kTwo>();
  if constexpr (kWParts > 1) {
    cols(1);
    AmxMultiply<kTwo>();
    rows(1);
    AmxMultiply<kTwo>();
    cols(0);
  } else {
    rows(1);
  }
  AmxMultiply<kTwo>();
  rows(2);
  AmxMultiply<kTwo>();
  if constexpr (kWParts > 2) {
    rows(0);
    cols(2);
    AmxMultiply<kTwo>();
  }
}

// The parts of two vectors: part p of `first` in the lower half of part[p], that of `second` in the
// upper one.
struct SplitVecs {
  __m512i part[kAmxParts];
};

// What the rest of a NaN or an infinity is: NaN, as it comes; or zero, so that the parts of any
// number add up to it, for two instructions more.
enum class RestOfInfinity : uint8_t { kNaN, kZero };

template <RestOfInfinity kRest>
inline Vec RestOf(Vec x, Vec part) {
  if constexpr (kRest == RestOfInfinity::kNaN) return x - part;
  constexpr int kNotFinite = 0x99;  // quiet and signalling NaN, both infinities
  const __mmask16 finite = _knot_mask16(_mm512_fpclass_ps_mask(part, kNotFinite));
  return _mm512_maskz_sub_ps(finite, x, part);
}

// The first kParts parts. Numbers past 255/256 of the largest become infinities.
template <int kParts, RestOfInfinity kRest>
inline SplitVecs Split(Vec first, Vec second) {
  SplitVecs parts;
  for (int p = 0; p < kParts; ++p) {
    parts.part[p] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
    if (p + 1 == kParts) break;
    first = RestOf<kRest>(first, WidenBF16(_mm512_castsi512_si256(parts.part[p])));
    second = RestOf<kRest>(second, WidenBF16(_mm512_extracti64x4_epi64(parts.part[p], 1)));
  }
  return parts;
}

// Whether one of [rows][kTileCols] sums is NaN.
inline bool HasNaN(const float* sums, int rows) {
  __mmask16 nan = 0;
  for (int64_t i = 0; i < int64_t{rows} * kTileCols; i += kLanes) {
    const Vec sum = Load(sums + i);
    nan |= _mm512_cmp_ps_mask(sum, sum, _CMP_UNORD_Q);
  }
  return nan != 0;
}

#endif

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_AMX_TILES_H_
