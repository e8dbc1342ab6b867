// A few rows times a panel whose weights are unpacked in registers (MatMulForm::direct). Only for
// *_isa.cc sources (isa.h).
//
// Reading the panel is most of the work, so it is fetched ahead of its use; the sums are, bit for
// bit, those of the form's tiles.
#ifndef QUANTMILL_KERNELS_CPU_DIRECT_ROWS_H_
#define QUANTMILL_KERNELS_CPU_DIRECT_ROWS_H_

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/panel_reader.h"

namespace quantmill::cpu::QUANTMILL_ISA {

inline constexpr int kDirectRows = 4;  // more rows and a group's scales no longer fit the registers

template <int kRows>
void ClearSums(Vec (&sum)[kRows][kTileVectors]) {
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = Zero();
  }
}
template <int kRows>
void StoreSums(const Vec (&sum)[kRows][kTileVectors], float* sums) {
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) Store(sums + r * kTileCols + v * kLanes, sum[r][v]);
  }
}

// The sums of StepF32.
struct DirectF32 {
  using X = float;
  template <int kRows, typename AnyReader>
  static void Rows(AnyReader reader, int64_t in, const float* x, int64_t x_row, float* sums) {
    Vec sum[kRows][kTileVectors];
    ClearSums(sum);
    ForEachGroup(reader, 0, in, [&](int64_t first, int64_t end) {
      for (int64_t k = first; k < end; ++k) {
        reader.FetchAhead(k);
        for (int v = 0; v < kTileVectors; ++v) {
          const Vec weight = reader.Weight(k, v);
          for (int r = 0; r < kRows; ++r) {
            sum[r][v] = StepF32::MulAdd(x + r * x_row + k, weight, sum[r][v]);
          }
        }
      }
    });
    StoreSums(sum, sums);
  }
};

#if defined(__AVX512BF16__)
// Lane c: the pair (even[c], odd[c]) rounded to BF16.
inline __m512bh Pairs(Vec even, Vec odd) {
  return reinterpret_cast<__m512bh>(
      Interleaved(reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even))));
}

// The two numbers of a step of x, in all lanes.
inline __m512i PairAt(const uint16_t* x) {
  int32_t pair;
  std::memcpy(&pair, x, sizeof(pair));
  return _mm512_set1_epi32(pair);
}

// The sums of StepPairs. Groups and `in` are even: no pair straddles.
struct DirectPairs {
  using X = uint16_t;
  template <int kRows, typename AnyReader>
  static void Rows(AnyReader reader, int64_t in, const uint16_t* x, int64_t x_row, float* sums) {
    Vec sum[kRows][kTileVectors];
    ClearSums(sum);
    ForEachGroup(reader, 0, in, [&](int64_t first, int64_t end) {
      for (int64_t k = first; k < end; k += 2) {
        reader.FetchAhead(k);
        reader.FetchAhead(k + 1);
        for (int v = 0; v < kTileVectors; ++v) {
          const __m512bh weight = Pairs(reader.Weight(k, v), reader.Weight(k + 1, v));
          for (int r = 0; r < kRows; ++r) {
            const auto pair = reinterpret_cast<__m512bh>(PairAt(x + r * x_row + k));
            sum[r][v] = _mm512_dpbf16_ps(sum[r][v], pair, weight);
          }
        }
      }
    });
    StoreSums(sum, sums);
  }
};
#endif

#if defined(__AMX_BF16__)
// The sums of AmxTile. For sixteen steps, TDPBF16PS sums the products of even inputs and those of
// odd ones, each a chain of fused multiply-adds, and then adds both to the sum; it takes subnormal
// numbers as zero, and gives none (Intel's manual, volume 2).
struct DirectSixteens {
  using X = float;
  static constexpr int64_t kInputs = 2 * kAmxSteps;

  // Two vectors of columns at a time: more, and sums leave the registers. Rounded to BF16 they fill
  // one, whose halves of words hold every other column.
  template <int kRows>
  struct Sums {
    Vec low[kRows] = {};
    Vec high[kRows] = {};
  };

  // Vectors kPart and kPart + 2: codes of four bits lie in the same bytes.
  static constexpr int kBeside = kTileVectors / 2;

  template <int kRows, typename AnyReader>
  [[gnu::noinline]] static void Rows(const AnyReader& reader, int64_t in, const float* x,
                                     int64_t x_row, float* sums) {
    static_assert(kBeside == 2);
    Part<kRows, 0>(reader, in, x, x_row, sums);
    Part<kRows, 1>(reader, in, x, x_row, sums + kLanes);
  }

  template <int kRows, int kPart, typename AnyReader>
  static void Part(AnyReader reader, int64_t in, const float* x, int64_t x_row, float* sums) {
    Sums<kRows> sum;
    for (int64_t begin = 0; begin < in; begin += kInputs) {
      const int64_t end = begin + kInputs < in ? begin + kInputs : in;
      Sums<kRows> even;
      Sums<kRows> odd;
      ForEachGroup(reader, begin, end, [&](int64_t first, int64_t last) {
        int64_t k = first;
        if (k % 2 != 0) {
          AddInput<kPart>(reader, x + k, x_row, k, odd);
          ++k;
        }
        for (; k + 1 < last; k += 2) {
          if (kPart == 0) reader.FetchAhead(k);
          AddInput<kPart>(reader, x + k, x_row, k, even);
          if (kPart == 0) reader.FetchAhead(k + 1);
          AddInput<kPart>(reader, x + k + 1, x_row, k + 1, odd);
        }
        if (k < last) AddInput<kPart>(reader, x + k, x_row, k, even);
      });
      for (int r = 0; r < kRows; ++r) {
        sum.low[r] = sum.low[r] + (even.low[r] + odd.low[r]);
        sum.high[r] = sum.high[r] + (even.high[r] + odd.high[r]);
      }
    }
    for (int r = 0; r < kRows; ++r) StoreColumns(sum.low[r], sum.high[r], sums + r * kTileCols);
  }

  template <int kPart, int kRows, typename AnyReader>
  [[gnu::always_inline]] static void AddInput(const AnyReader& reader, const float* x,
                                              int64_t x_row, int64_t k, Sums<kRows>& sums) {
    const auto words = reinterpret_cast<__m512i>(
        _mm512_cvtne2ps_pbh(reader.Weight(k, kPart + kBeside), reader.Weight(k, kPart)));
    const Vec low = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
    const Vec high = _mm512_castsi512_ps(
        _mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xFFFF0000u))));
    for (int r = 0; r < kRows; ++r) {
      const Vec factor = Set1(x[r * x_row]);
      sums.low[r] = Fma(factor, low, sums.low[r]);
      sums.high[r] = Fma(factor, high, sums.high[r]);
    }
  }

  static void StoreColumns(Vec low, Vec high, float* sums) {
    const __m512i first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    Store(sums, _mm512_permutex2var_ps(low, first, high));
    Store(sums + kBeside * kLanes, _mm512_permutex2var_ps(low, second, high));
  }
};
#endif

template <typename Kind>
void Direct(const Panel& panel, int64_t in, int rows, const void* x, int64_t x_row, float* sums) {
  static_assert(kDirectRows == 4);
  const auto* from = static_cast<const typename Kind::X*>(x);
  WithReader(panel, [&](const auto& reader) {
    switch (rows) {
      case 1:
        return Kind::template Rows<1>(reader, in, from, x_row, sums);
      case 2:
        return Kind::template Rows<2>(reader, in, from, x_row, sums);
      case 3:
        return Kind::template Rows<3>(reader, in, from, x_row, sums);
      default:
        return Kind::template Rows<4>(reader, in, from, x_row, sums);
    }
  });
}

#if defined(__AMX_BF16__)
inline void DirectLikeAmx(const Panel& panel, int64_t in, int rows, const void* x, int64_t x_row,
                          float* sums) {
  const NoSubnormals mode;
  Direct<DirectSixteens>(panel, in, rows, x, x_row, sums);
}
#endif

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_DIRECT_ROWS_H_
