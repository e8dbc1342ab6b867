// MatMul's kernels; compiled once per instruction set (isa.h).
#include <cstddef>
#include <new>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/e4m3.h"
#include "kernels/cpu/row_tiles.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

// ---- dot-product tiles ----

constexpr int kCols = kTileCols;

#if defined(__AMX_BF16__)
// The steps behind the last whole sixteen, padded with zeros.
struct AmxRest {
  alignas(64) uint32_t x[kAmxSide][kAmxSteps] = {};
  alignas(64) uint32_t w[kAmxSteps][kCols] = {};

  AmxRest(const TileArgs& a, int64_t begin) {
    const auto bytes = static_cast<size_t>(a.steps - begin) * 4;
    for (int r = 0; r < a.rows; ++r) {
      std::memcpy(x[r], static_cast<const uint32_t*>(a.x) + r * a.x_row + begin, bytes);
    }
    std::memcpy(w, static_cast<const uint32_t*>(a.w) + begin * kCols, bytes * kCols);
  }
};

template <bool kTwo>
void AmxTile(const TileArgs& a) {
  const AmxTiles tiles(a.rows);
  const int64_t whole = a.steps / kAmxSteps * kAmxSteps;
  const AmxRest* rest = nullptr;
  alignas(AmxRest) std::byte storage[sizeof(AmxRest)];
  if (whole < a.steps) rest = new (storage) AmxRest(a, whole);
  for (int64_t c = 0; c < kCols; c += kAmxSide) {
    float* sums = a.sums + c;
    AmxLoadSums<kTwo>(a.resume, sums, kCols * 4);
    const AmxOperands operands{static_cast<const char*>(a.x), a.x_row * 4,
                               static_cast<const char*>(a.w) + c * 4, kCols * 4};
    for (int64_t step = 0; step < whole; step += kAmxSteps) {
      const char* ahead = static_cast<const char*>(a.ahead) + (step + c / 4) * 64;
      for (int64_t line = 0; line < kAmxSteps / 2; ++line) {
        __builtin_prefetch(ahead + line * 64, 0, 2);
      }
      AmxStep<kTwo>(operands, step);
    }
    if (rest != nullptr) {
      AmxStep<kTwo>({reinterpret_cast<const char*>(rest->x), kAmxSteps * 4,
                     reinterpret_cast<const char*>(rest->w) + c * 4, kCols * 4},
                    0);
    }
    AmxStoreSums<kTwo>(sums, kCols * 4);
  }
}

void TilePairs(const TileArgs& a) {
  if (a.steps == 0) return Tile<StepPairs>(a);  // zeros, or the sums as they are
  a.rows > kAmxSide / 2 ? AmxTile<true>(a) : AmxTile<false>(a);
}
#endif

// ---- reading panels ----

Vec LoadI8(const int8_t* p) {
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
Vec LoadNibbles(const uint8_t* p, bool high) {
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
Vec LoadE2M1(const uint8_t* p, bool high) {
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

Vec LoadFloats(PanelType type, const void* values, int64_t at) {
  switch (type) {
    case PanelType::kF16:
      return LoadF16(static_cast<const uint16_t*>(values) + at);
    case PanelType::kBF16:
      return LoadBF16(static_cast<const uint16_t*>(values) + at);
    default:
      return Load(static_cast<const float*>(values) + at);
  }
}

Vec RoundToBF16(Vec v) {
  uint16_t half[kLanes];
  StoreBF16(half, v);
  return LoadBF16(half);
}

// Reads the weights of one input as F32 vectors; Group() comes before the first input of a group.
template <PanelType kType, bool kZeros>
struct Reader {
  static constexpr bool kCodes = kType == PanelType::kI8 || kType == PanelType::kI4 ||
                                 kType == PanelType::kF8 || kType == PanelType::kF4;
  const Panel& panel;
  Vec scale[kTileVectors];
  Vec zero[kTileVectors];

  explicit Reader(const Panel& p) : panel(p) {}

  void Group(int64_t group) {
    for (int v = 0; v < kTileVectors; ++v) {
      const int64_t at = group * kCols + v * kLanes;
      scale[v] = LoadFloats(panel.scale_type, panel.scales, at);
      if constexpr (kZeros) zero[v] = LoadI8(panel.zeros + at);
    }
  }

  Vec Code(int64_t k, int v) const {
    constexpr int kHalf = kTileVectors / 2;
    const int64_t nibbles = k * (kCols / 2) + v % kHalf * kLanes;
    if constexpr (kType == PanelType::kI8) {
      return LoadI8(static_cast<const int8_t*>(panel.values) + k * kCols + v * kLanes);
    } else if constexpr (kType == PanelType::kF8) {
      return LoadE4M3(static_cast<const uint8_t*>(panel.values) + k * kCols + v * kLanes);
    } else if constexpr (kType == PanelType::kF4) {
      return LoadE2M1(static_cast<const uint8_t*>(panel.values) + nibbles, v >= kHalf);
    } else {
      return LoadNibbles(static_cast<const uint8_t*>(panel.values) + nibbles, v >= kHalf);
    }
  }

  Vec Weight(int64_t k, int v) const {
    if constexpr (kType == PanelType::kF16) {
      return LoadF16(static_cast<const uint16_t*>(panel.values) + k * kCols + v * kLanes);
    } else if constexpr (kType == PanelType::kBF16) {
      return LoadBF16(static_cast<const uint16_t*>(panel.values) + k * kCols + v * kLanes);
    } else if constexpr (kZeros) {
      // code - zero is a small integer, exact in F32: the product equals that of Dequantize.
      return (Code(k, v) - zero[v]) * scale[v];
    } else {
      return Code(k, v) * scale[v];
    }
  }
};

// Calls use(reader) with the panel's kind of reader; F32 and pairs are read in place and have none.
template <typename Use>
void WithReader(const Panel& panel, const Use& use) {
  const bool zeros = panel.zeros != nullptr;
  switch (panel.type) {
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
    case PanelType::kF32:
    case PanelType::kBF16Pairs:
      return;
  }
}

// Calls body(begin, end) for each run of inputs of [begin, end) within one group.
template <typename AnyReader, typename Body>
void ForEachGroup(AnyReader& reader, int64_t begin, int64_t end, const Body& body) {
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

// ---- unpacking a block of a panel ----

template <bool kRound, typename AnyReader>
void UnpackFrom(AnyReader reader, int64_t begin, int64_t count, float* w) {
  ForEachGroup(reader, begin, begin + count, [&](int64_t first, int64_t end) {
    for (int64_t k = first; k < end; ++k) {
      for (int v = 0; v < kTileVectors; ++v) {
        const Vec weight = reader.Weight(k, v);
        Store(w + (k - begin) * kCols + v * kLanes, kRound ? RoundToBF16(weight) : weight);
      }
    }
  });
}

void Unpack(const Panel& panel, int64_t begin, int64_t count, float* w) {
  WithReader(panel, [&](const auto& reader) {
    if (panel.round_to_bf16) {
      UnpackFrom<true>(reader, begin, count, w);
    } else {
      UnpackFrom<false>(reader, begin, count, w);
    }
  });
}

#if defined(__AVX512BF16__)
// Lane c: the pair (even[c], odd[c]) rounded to BF16.
__m512bh Pairs(Vec even, Vec odd) {
  // cvtne2ps puts `even` into words 0-15 and `odd` into words 16-31.
  const __m512i interleave =
      _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                       21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  const __m512bh words = _mm512_cvtne2ps_pbh(odd, even);
  return reinterpret_cast<__m512bh>(
      _mm512_permutexvar_epi16(interleave, reinterpret_cast<__m512i>(words)));
}

template <typename AnyReader>
void UnpackPairsFrom(AnyReader reader, int64_t begin, int64_t count, uint16_t* w) {
  Vec waiting[kTileVectors];  // the even input of a pair that straddles two groups
  const auto store = [&](int64_t k, int v, Vec even, Vec odd) {
    const __m512bh pairs = Pairs(even, odd);
    std::memcpy(w + ((k - begin) / 2 * kTileVectors + v) * kLanes * 2, &pairs, sizeof(pairs));
  };
  ForEachGroup(reader, begin, begin + count, [&](int64_t first, int64_t end) {
    int64_t k = first;
    if ((k - begin) % 2 != 0) {
      for (int v = 0; v < kTileVectors; ++v) store(k, v, waiting[v], reader.Weight(k, v));
      ++k;
    }
    for (; k + 1 < end; k += 2) {
      for (int v = 0; v < kTileVectors; ++v) {
        store(k, v, reader.Weight(k, v), reader.Weight(k + 1, v));
      }
    }
    if (k == end) return;
    for (int v = 0; v < kTileVectors; ++v) {
      waiting[v] = reader.Weight(k, v);
      store(k, v, waiting[v], Zero());
    }
  });
}

void UnpackPairs(const Panel& panel, int64_t begin, int64_t count, uint16_t* w) {
  WithReader(panel, [&](const auto& reader) { UnpackPairsFrom(reader, begin, count, w); });
}
#endif

// ---- a few rows straight from the panel ----

constexpr int kDirectRows = 4;  // more rows and the group's scales no longer fit the registers

template <int kRows>
void ClearSums(Vec (&sum)[kRows][kTileVectors]) {
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) sum[r][v] = Zero();
  }
}
template <int kRows>
void StoreSums(const Vec (&sum)[kRows][kTileVectors], float* sums) {
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kTileVectors; ++v) Store(sums + r * kCols + v * kLanes, sum[r][v]);
  }
}

struct DirectF32 {
  using X = float;
  template <int kRows, typename AnyReader>
  static void Rows(AnyReader reader, int64_t in, const float* x, int64_t x_row, float* sums) {
    Vec sum[kRows][kTileVectors];
    ClearSums(sum);
    ForEachGroup(reader, 0, in, [&](int64_t first, int64_t end) {
      for (int64_t k = first; k < end; ++k) {
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
struct DirectPairs {  // groups and `in` are even: no pair straddles
  using X = uint16_t;
  template <int kRows, typename AnyReader>
  static void Rows(AnyReader reader, int64_t in, const uint16_t* x, int64_t x_row, float* sums) {
    Vec sum[kRows][kTileVectors];
    ClearSums(sum);
    ForEachGroup(reader, 0, in, [&](int64_t first, int64_t end) {
      for (int64_t k = first; k < end; k += 2) {
        for (int v = 0; v < kTileVectors; ++v) {
          const __m512bh weight = Pairs(reader.Weight(k, v), reader.Weight(k + 1, v));
          for (int r = 0; r < kRows; ++r) {
            int32_t pair;
            std::memcpy(&pair, x + r * x_row + k, sizeof(pair));
            sum[r][v] = _mm512_dpbf16_ps(
                sum[r][v], reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)), weight);
          }
        }
      }
    });
    StoreSums(sum, sums);
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

// ---- results ----

// kLanes results, of which `count` exist.
void StoreLanes(const StoreArgs& a, int r, int64_t c, int count, Vec sum) {
  if (a.bf16) {
    uint16_t* y = static_cast<uint16_t*>(a.y) + r * a.y_row + c;
    if (count == kLanes) return StoreBF16(y, sum);
    uint16_t lanes[kLanes];
    StoreBF16(lanes, sum);
    std::memcpy(y, lanes, static_cast<size_t>(count) * sizeof(uint16_t));
    return;
  }
  float* y = static_cast<float*>(a.y) + r * a.y_row + c;
  if (count == kLanes) {
    Store(y, a.add ? Load(y) + sum : sum);
    return;
  }
  float lanes[kLanes] = {};
  if (a.add) std::memcpy(lanes, y, static_cast<size_t>(count) * sizeof(float));
  Store(lanes, a.add ? Load(lanes) + sum : sum);
  std::memcpy(y, lanes, static_cast<size_t>(count) * sizeof(float));
}

Vec LoadPart(const float* p, int count) {
  if (count == kLanes) return Load(p);
  float lanes[kLanes] = {};
  std::memcpy(lanes, p, static_cast<size_t>(count) * sizeof(float));
  return Load(lanes);
}

void StoreTile(const StoreArgs& a) {
  for (int64_t c = 0; c < a.cols; c += kLanes) {
    const int count = a.cols - c < kLanes ? static_cast<int>(a.cols - c) : kLanes;
    const bool biased = a.bias != nullptr;
    const Vec bias = biased ? LoadPart(a.bias + c, count) : Zero();
    for (int r = 0; r < a.rows; ++r) {
      const Vec sum = Load(a.sums + r * kCols + c);
      // No bias is not a bias of zero: -0 stays -0.
      StoreLanes(a, r, c, count, biased ? sum + bias : sum);
    }
  }
}

// ---- embedding rows ----

void Widen(PanelType type, const void* row, float scale, int64_t count, float* out) {
  const Vec factor = Set1(scale);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) Store(out + i, LoadFloats(type, row, i) * factor);
  if (i == count) return;
  const size_t size = type == PanelType::kF32 ? 4 : 2;
  const size_t rest = static_cast<size_t>(count - i);
  float tail[kLanes] = {};
  std::memcpy(tail, static_cast<const char*>(row) + static_cast<size_t>(i) * size, rest * size);
  Store(tail, LoadFloats(type, tail, 0) * factor);
  std::memcpy(out + i, tail, rest * sizeof(float));
}

#if defined(__AMX_BF16__)
// No direct path: its sums would be others than the tiles'.
constexpr int kPairRows = kAmxSide;
constexpr bool kPairs = true;
constexpr auto* kTilePairs = TilePairs;
constexpr auto* kUnpackPairs = UnpackPairs;
constexpr std::nullptr_t kDirectPairs = nullptr;
#elif defined(__AVX512BF16__)
constexpr int kPairRows = kTileRows;
constexpr bool kPairs = true;
constexpr auto* kTilePairs = Tile<StepPairs>;
constexpr auto* kUnpackPairs = UnpackPairs;
constexpr auto* kDirectPairs = Direct<DirectPairs>;
#else
constexpr int kPairRows = 0;
constexpr bool kPairs = false;
constexpr std::nullptr_t kTilePairs = nullptr;
constexpr std::nullptr_t kUnpackPairs = nullptr;
constexpr std::nullptr_t kDirectPairs = nullptr;
#endif

}  // namespace

extern const MatMulKernels kMatMulKernels;
const MatMulKernels kMatMulKernels = {
    .tile_rows = kTileRows,
    .pair_rows = kPairRows,
    .panel_cols = kTileCols,
    .direct_rows = kDirectRows,
    .pairs = kPairs,
    .tile = Tile<StepF32>,
    .tile_pairs = kTilePairs,
    .unpack = Unpack,
    .unpack_pairs = kUnpackPairs,
    .direct = Direct<DirectF32>,
    .direct_pairs = kDirectPairs,
    .store = StoreTile,
    .widen = Widen,
};

}  // namespace quantmill::cpu::QUANTMILL_ISA
