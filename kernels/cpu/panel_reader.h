// Reads the weights of a panel (matmul_kernels.h) as F32 vectors. Only for *_isa.cc sources
// (isa.h).
#ifndef QUANTMILL_KERNELS_CPU_PANEL_READER_H_
#define QUANTMILL_KERNELS_CPU_PANEL_READER_H_

#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/e4m3.h"
#include "kernels/cpu/matmul_kernels.h"

namespace quantmill::cpu::QUANTMILL_ISA {

inline Vec LoadI8(const int8_t* p) {
#if defined(__AVX512F__)
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  float out[kLanes];
  for (int i = 0; i < kLanes; ++i) out[i] = p[i];
  return Load(out);
#endif
}

// The codes of kLanes bytes: low halves, or high ones.
inline Vec LoadNibbles(const uint8_t* p, bool high) {
#if defined(__AVX512F__)
  // A permutation looks at the low four bits of its index alone: no mask, and no conversion.
  const __m512 codes = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm512_permutexvar_ps(high ? _mm512_srli_epi32(bytes, 4) : bytes, codes);
#elif defined(__AVX2__)
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m256i half =
      high ? _mm256_srli_epi32(bytes, 4) : _mm256_and_si256(bytes, _mm256_set1_epi32(15));
  return _mm256_cvtepi32_ps(_mm256_sub_epi32(half, _mm256_set1_epi32(8)));
#else
  float out[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    out[i] = static_cast<float>((high ? p[i] >> 4 : p[i] & 15) - 8);
  }
  return Load(out);
#endif
}

// The E2M1 numbers of kLanes bytes: low halves, or high ones.
inline Vec LoadE2M1(const uint8_t* p, bool high) {
#if defined(__AVX512F__)
  const __m512 numbers =
      _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6);
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm512_permutexvar_ps(high ? _mm512_srli_epi32(bytes, 4) : bytes, numbers);
#elif defined(__AVX2__)
  // A permutation looks at the low three bits of its index alone.
  const __m256 magnitudes = _mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6);
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m256i half = high ? _mm256_srli_epi32(bytes, 4) : bytes;
  const __m256i sign = _mm256_slli_epi32(_mm256_srli_epi32(half, 3), 31);
  return _mm256_xor_ps(_mm256_permutevar8x32_ps(magnitudes, half), _mm256_castsi256_ps(sign));
#else
  constexpr float kMagnitudes[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  float out[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const int code = high ? p[i] >> 4 : p[i] & 15;
    out[i] = (code & 8) != 0 ? -kMagnitudes[code & 7] : kMagnitudes[code & 7];
  }
  return Load(out);
#endif
}

// IQ4_NL's levels (kIq4NlLevels) of kLanes bytes: low halves, or high ones.
inline Vec LoadIq4Nl(const uint8_t* p, bool high) {
#if defined(__AVX512F__)
  const __m512 levels =
      _mm512_setr_ps(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
  const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm512_permutexvar_ps(high ? _mm512_srli_epi32(bytes, 4) : bytes, levels);
#elif defined(__AVX2__)
  const __m256 below = _mm256_setr_ps(-127, -104, -83, -65, -49, -35, -22, -10);
  const __m256 above = _mm256_setr_ps(1, 13, 25, 38, 53, 69, 89, 113);
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m256i half = high ? _mm256_srli_epi32(bytes, 4) : bytes;
  // A permutation looks at the low three bits of its index, a blend at the highest.
  const __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(half, 28));
  return _mm256_blendv_ps(_mm256_permutevar8x32_ps(below, half),
                          _mm256_permutevar8x32_ps(above, half), second);
#else
  constexpr int kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                               1,    13,   25,  38,  53,  69,  89,  113};
  float out[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    out[i] = static_cast<float>(kLevels[high ? p[i] >> 4 : p[i] & 15]);
  }
  return Load(out);
#endif
}

inline Vec LoadFloats(PanelType type, const void* values, int64_t at) {
  switch (type) {
    case PanelType::kF16:
      return LoadF16(static_cast<const uint16_t*>(values) + at);
    case PanelType::kBF16:
      return LoadBF16(static_cast<const uint16_t*>(values) + at);
    default:
      return Load(static_cast<const float*>(values) + at);
  }
}

inline Vec RoundToBF16(Vec v) {
  uint16_t half[kLanes];
  StoreBF16(half, v);
  return LoadBF16(half);
}

// Reads the weights of one input as F32 vectors; Group() comes before the first input of a group.
template <PanelType kType, bool kZeros>
struct Reader {
  static constexpr bool kNibbles =
      kType == PanelType::kI4 || kType == PanelType::kF4 || kType == PanelType::kIq4Nl;
  static constexpr bool kCodes = kType == PanelType::kI8 || kType == PanelType::kF8 || kNibbles;
  static constexpr int64_t kInputBytes = kNibbles                   ? kTileCols / 2
                                         : kCodes                   ? kTileCols
                                         : kType == PanelType::kF32 ? 4 * kTileCols
                                                                    : 2 * kTileCols;
  const Panel& panel;
  Vec scale[kTileVectors];
  Vec zero[kTileVectors];

  explicit Reader(const Panel& p) : panel(p) {}

  void Group(int64_t group) {
    for (int v = 0; v < kTileVectors; ++v) {
      const int64_t at = group * kTileCols + v * kLanes;
      scale[v] = LoadFloats(panel.scale_type, panel.scales, at);
      if constexpr (kZeros) zero[v] = LoadI8(panel.zeros + at);
    }
  }

  Vec Code(int64_t k, int v) const {
    constexpr int kHalf = kTileVectors / 2;
    const int64_t nibbles = k * (kTileCols / 2) + v % kHalf * kLanes;
    if constexpr (kType == PanelType::kI8) {
      return LoadI8(static_cast<const int8_t*>(panel.values) + k * kTileCols + v * kLanes);
    } else if constexpr (kType == PanelType::kF8) {
      return LoadE4M3(static_cast<const uint8_t*>(panel.values) + k * kTileCols + v * kLanes);
    } else if constexpr (kType == PanelType::kF4) {
      return LoadE2M1(static_cast<const uint8_t*>(panel.values) + nibbles, v >= kHalf);
    } else if constexpr (kType == PanelType::kIq4Nl) {
      return LoadIq4Nl(static_cast<const uint8_t*>(panel.values) + nibbles, v >= kHalf);
    } else {
      return LoadNibbles(static_cast<const uint8_t*>(panel.values) + nibbles, v >= kHalf);
    }
  }

  // Brings into L1 what will be read some inputs after k: streams of a page or two are over before
  // the machine's own prefetcher is at speed. It may lie past the end, which does no harm.
  void FetchAhead(int64_t k) const {
    constexpr int64_t kAhead = 2048;
    const char* at = static_cast<const char*>(panel.values) + k * kInputBytes + kAhead;
    for (int64_t line = 0; line < kInputBytes; line += 64) __builtin_prefetch(at + line);
  }

  Vec Weight(int64_t k, int v) const {
    if constexpr (kType == PanelType::kF32) {
      return Load(static_cast<const float*>(panel.values) + k * kTileCols + v * kLanes);
    } else if constexpr (kType == PanelType::kF16) {
      return LoadF16(static_cast<const uint16_t*>(panel.values) + k * kTileCols + v * kLanes);
    } else if constexpr (kType == PanelType::kBF16) {
      return LoadBF16(static_cast<const uint16_t*>(panel.values) + k * kTileCols + v * kLanes);
    } else if constexpr (kZeros) {
      // code - zero is a small integer, exact in F32: the product equals that of Dequantize.
      return (Code(k, v) - zero[v]) * scale[v];
    } else {
      return Code(k, v) * scale[v];
    }
  }
};

// Calls use(reader) with the panel's kind of reader; pairs are read in place and have none.
template <typename Use>
void WithReader(const Panel& panel, const Use& use) {
  const bool zeros = panel.zeros != nullptr;
  switch (panel.type) {
    case PanelType::kF32:
      return use(Reader<PanelType::kF32, false>(panel));
    case PanelType::kF16:
      return use(Reader<PanelType::kF16, false>(panel));
    case PanelType::kBF16:
      return use(Reader<PanelType::kBF16, false>(panel));
    case PanelType::kI8:
      if (zeros) return use(Reader<PanelType::kI8, true>(panel));
      return use(Reader<PanelType::kI8, false>(panel));
    case PanelType::kI4:
      if (zeros) return use(Reader<PanelType::kI4, true>(panel));
      return use(Reader<PanelType::kI4, false>(panel));
    case PanelType::kF8:
      return use(Reader<PanelType::kF8, false>(panel));
    case PanelType::kF4:
      return use(Reader<PanelType::kF4, false>(panel));
    case PanelType::kIq4Nl:
      return use(Reader<PanelType::kIq4Nl, false>(panel));
    case PanelType::kBF16Pairs:
      return;
  }
}

// Calls body(begin, end) for each run of inputs of [begin, end) within one group. Inlined, or what
// `body` captures would live in memory.
template <typename AnyReader, typename Body>
[[gnu::always_inline]] inline void ForEachGroup(AnyReader& reader, int64_t begin, int64_t end,
                                                const Body& body) {
  if constexpr (!AnyReader::kCodes) {
    body(begin, end);
  } else {
    const int64_t group_size = reader.panel.group_size;
    while (begin < end) {
      const int64_t group = begin / group_size;
      const int64_t group_end = (group + 1) * group_size;
      const int64_t run_end = group_end < end ? group_end : end;
      reader.Group(group);
      body(begin, run_end);
      begin = run_end;
    }
  }
}

// Calls store(step, v, even, odd) with vector v of the weights of inputs begin + 2 * step and the
// one behind it, of [begin, begin + count); begin is even, the partner of a last odd one is zero.
template <typename AnyReader, typename StorePair>
void ForEachPair(AnyReader reader, int64_t begin, int64_t count, const StorePair& store) {
  Vec waiting[kTileVectors];  // the even input of a pair that straddles two groups
  ForEachGroup(reader, begin, begin + count, [&](int64_t first, int64_t end) {
    int64_t k = first;
    if ((k - begin) % 2 != 0) {
      const int64_t step = (k - begin) / 2;
      for (int v = 0; v < kTileVectors; ++v) store(step, v, waiting[v], reader.Weight(k, v));
      ++k;
    }
    for (; k + 1 < end; k += 2) {
      const int64_t step = (k - begin) / 2;
      for (int v = 0; v < kTileVectors; ++v) {
        store(step, v, reader.Weight(k, v), reader.Weight(k + 1, v));
      }
    }
    if (k == end) return;
    for (int v = 0; v < kTileVectors; ++v) {
      waiting[v] = reader.Weight(k, v);
      store((k - begin) / 2, v, waiting[v], Zero());
    }
  });
}

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_PANEL_READER_H_
