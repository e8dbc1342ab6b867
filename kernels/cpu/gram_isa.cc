// AddGram's kernels; compiled once per instruction set (isa.h).
#include <cstddef>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/dot_tile.h"
#include "kernels/cpu/gram_kernels.h"
#include "kernels/cpu/transpose.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

constexpr int kCols = kTileCols;

// ---- packing ----

// kLanes elements, zero from `count` on.
Vec LoadElements(const void* x, bool bf16, int64_t at, int count) {
  if (count >= kLanes) {
    return bf16 ? LoadBF16(static_cast<const uint16_t*>(x) + at)
                : Load(static_cast<const float*>(x) + at);
  }
  const auto existing = static_cast<size_t>(count > 0 ? count : 0);
  if (bf16) {
    uint16_t lanes[kLanes] = {};
    std::memcpy(lanes, static_cast<const uint16_t*>(x) + at, existing * sizeof(uint16_t));
    return LoadBF16(lanes);
  }
  float lanes[kLanes] = {};
  std::memcpy(lanes, static_cast<const float*>(x) + at, existing * sizeof(float));
  return Load(lanes);
}

// Columns [c, c + kLanes) of a token, zero from `cols` on; zero past the tokens.
template <bool kBF16>
Vec LoadToken(const GramPackArgs& a, int64_t token, int c) {
  if (token >= a.tokens) return Zero();
  const Vec x = LoadElements(a.x, kBF16, token * a.x_row + c, a.cols - c);
  if (a.minus == nullptr) return x;
  return x - LoadElements(a.minus, kBF16, token * a.minus_row + c, a.cols - c);
}

template <bool kBF16>
void PackWide(const GramPackArgs& a) {
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int c = 0; c < kCols; c += kLanes) {
      Store(a.right + t * kCols + c, LoadToken<kBF16>(a, t, c));
    }
  }
}

#if defined(__AVX512BF16__)
// Pairs of BF16 whose bits are in the high halves of the lanes.
Vec PairOf(Vec first, Vec second) {
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(first), 16);
  return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(second)));
}

// x rounded to BF16, widened again.
Vec Rounded(Vec x) {
  uint16_t lanes[kLanes];
  StoreBF16(lanes, x);
  return LoadBF16(lanes);
}

// Tokens t and t + 1. A difference is rounded as it is stored; the bits of x itself are BF16
// already.
Vec LoadPair(const GramPackArgs& a, int64_t token, int c) {
  const Vec first = LoadToken<true>(a, token, c);
  const Vec second = LoadToken<true>(a, token + 1, c);
  return a.minus == nullptr ? PairOf(first, second) : PairOf(Rounded(first), Rounded(second));
}
#endif

#if defined(__AMX_BF16__)
// Sixteen steps of a panel lie together, part after part: of a right factor as [step][column], of a
// left one as [column][step], so that the rows of a tile are whole cache lines.
constexpr int64_t kPartFloats = kAmxSteps * kCols;

// The pairs of one step, a vector for each part.
struct BF16Pairs {
  static constexpr int kParts = 1;
  static SplitVecs Load(const GramPackArgs& a, int64_t token, int c) {
    return {{_mm512_castps_si512(LoadPair(a, token, c))}};
  }
};

struct F32Parts {
  static constexpr int kParts = kAmxParts;
  static SplitVecs Load(const GramPackArgs& a, int64_t token, int c) {
    SplitVecs pairs = Split<kParts, RestOfInfinity::kZero>(LoadToken<false>(a, token, c),
                                                           LoadToken<false>(a, token + 1, c));
    for (__m512i& part : pairs.part) part = Interleaved(part);
    return pairs;
  }
};

template <typename Pairs>
void PackTiles(const GramPackArgs& a) {
  static_assert(kAmxSteps == kLanes);
  constexpr int64_t kGroup = Pairs::kParts * kPartFloats;
  alignas(64) float block[Pairs::kParts][kAmxSteps * kLanes];
  for (int64_t t = 0; t < a.tokens; t += 2 * kAmxSteps) {
    const int64_t group = t / (2 * kAmxSteps) * kGroup;
    for (int c = 0; c < kCols; c += kLanes) {
      for (int step = 0; step < kAmxSteps; ++step) {
        const SplitVecs pairs = Pairs::Load(a, t + 2 * step, c);
        for (int p = 0; p < Pairs::kParts; ++p) {
          const Vec part = _mm512_castsi512_ps(pairs.part[p]);
          Store(block[p] + step * kLanes, part);
          if (a.right == nullptr) continue;
          Store(a.right + group + p * kPartFloats + step * kCols + c, part);
        }
      }
      for (int p = 0; p < Pairs::kParts && a.left != nullptr; ++p) {
        float* left = a.left + group + p * kPartFloats + c * kAmxSteps;
        TransposeBlock(block[p], kLanes, left, kAmxSteps);
      }
    }
  }
}
#elif defined(__AVX512BF16__)
void PackPairs(const GramPackArgs& a) {
  for (int64_t t = 0; t < a.tokens; t += 2) {
    for (int c = 0; c < kCols; c += kLanes) Store(a.right + t / 2 * kCols + c, LoadPair(a, t, c));
  }
}
#endif

// ---- products ----

// Rows [row, row + kRows) of the block, from the vector kFirst of columns on.
template <typename Step, int kRows, int kFirst>
void TileFrom(const GramBlockArgs& a, int row, int64_t begin, int64_t steps, const char* ahead) {
  RunTile<Step, kRows, kTileVectors - kFirst, kCols>(
      a.a + begin * kCols + row, 1, a.b + begin * kCols + kFirst * kLanes, steps, begin > 0, ahead,
      a.sums + row * kCols + kFirst * kLanes);
}

template <typename Step, int kRows>
void TileRow(const GramBlockArgs& a, int row, int64_t begin, int64_t steps) {
  static_assert(kTileVectors == 2 || kTileVectors == 4);
  // The first tiles fetch what lies behind the block of b: its next steps, or the panel that the
  // next task multiplies (past the last one: a prefetch does not fault).
  const char* block = reinterpret_cast<const char*>(a.b + begin * kCols);
  const int64_t block_bytes = steps * kCols * 4;
  const int64_t at = row / kTileRows * steps * 64;
  const char* ahead = at < block_bytes ? block + block_bytes + at : block;
  // On the diagonal the vectors left of it are not needed.
  const int first = a.diagonal ? row / kLanes : 0;
  if constexpr (kTileVectors == 4) {
    if (first == 3) return TileFrom<Step, kRows, 3>(a, row, begin, steps, ahead);
    if (first == 2) return TileFrom<Step, kRows, 2>(a, row, begin, steps, ahead);
  }
  if (first == 1) return TileFrom<Step, kRows, 1>(a, row, begin, steps, ahead);
  return TileFrom<Step, kRows, 0>(a, row, begin, steps, ahead);
}

// gram row += sums row, columns [first, cols).
void AddRow(const float* sums, int first, int cols, float* gram) {
  int c = first;
  for (; c < cols && c % kLanes != 0; ++c) gram[c] += sums[c];
  for (; c + kLanes <= cols; c += kLanes) Store(gram + c, Load(gram + c) + Load(sums + c));
  for (; c < cols; ++c) gram[c] += sums[c];
}

void AddSums(const GramBlockArgs& a) {
  for (int i = 0; i < a.rows; ++i) {
    AddRow(a.sums + i * kCols, a.diagonal ? i : 0, a.cols, a.gram + i * a.gram_row);
  }
}

// Steps taken at a time: both factors stay in L2 while all their tiles pass.
constexpr int64_t kStepBlock = 512;

template <typename Step>
void AddBlock(const GramBlockArgs& a) {
  for (int64_t begin = 0; begin < a.steps; begin += kStepBlock) {
    const int64_t steps = a.steps - begin < kStepBlock ? a.steps - begin : kStepBlock;
    int row = 0;
    for (; row + kTileRows <= kCols; row += kTileRows) {
      TileRow<Step, kTileRows>(a, row, begin, steps);
    }
    TileRow<Step, kCols % kTileRows>(a, row, begin, steps);
  }
  AddSums(a);
}

#if defined(__AMX_BF16__)
// The block's 16 steps at a and b.
template <int kParts>
void AddSteps(const float* a, const float* b) {
  const AmxOperands first{reinterpret_cast<const char*>(a), kAmxSteps * 4,
                          reinterpret_cast<const char*>(b), kCols * 4};
  if constexpr (kParts == 1) {
    AmxStep<true>(first, 0);
  } else {
    AmxAddParts<kParts, true>({first, kPartFloats * 4, kPartFloats * 4});
  }
}

// One of the two numbers of a pair, the sum of its parts; `step` lies `stride` floats from the
// next.
float WholeNumber(const float* steps, int64_t step, int64_t stride, int odd) {
  float sum = 0;
  for (int p = kAmxParts - 1; p >= 0; --p) {  // the small ones first: exact
    uint32_t pair;
    std::memcpy(&pair, steps + p * kPartFloats + step * stride, sizeof(pair));
    const uint32_t bits = odd != 0 ? pair & 0xFFFF0000u : pair << 16;
    float part;
    std::memcpy(&part, &bits, sizeof(part));
    sum += part;
  }
  return sum;
}

// Sums that are NaN, again from whole numbers: an infinity times a part that is zero is NaN even
// where its product with the number is not.
void SumNaNsAgain(const GramBlockArgs& a) {
  if (!HasNaN(a.sums, a.rows)) return;
  for (int i = 0; i < a.rows; ++i) {
    for (int j = a.diagonal ? i : 0; j < a.cols; ++j) {
      float& sum = a.sums[i * kCols + j];
      if (sum == sum) continue;  // NOLINT(misc-redundant-expression)
      sum = 0;
      for (int64_t at = 0; at < 2 * a.steps && sum == sum; ++at) {  // NOLINT
        const int64_t group = at / (2 * kAmxSteps) * kAmxParts * kPartFloats;
        const int64_t step = at / 2 % kAmxSteps;
        const int odd = static_cast<int>(at % 2);
        sum += WholeNumber(a.a + group + i * kAmxSteps, step, 1, odd) *
               WholeNumber(a.b + group + j, step, kCols, odd);
      }
    }
  }
}

template <typename Pairs>
void AddBlockAmx(const GramBlockArgs& a) {
  constexpr int kParts = Pairs::kParts;
  const AmxTiles tiles(kAmxSide);
  for (int64_t i = 0; i < a.rows; i += kAmxSide) {
    for (int64_t j = a.diagonal ? i : 0; j < a.cols; j += kAmxSide) {
      float* sums = a.sums + i * kCols + j;
      AmxLoadSums<true>(false, sums, kCols * 4);
      for (int64_t step = 0; step < a.steps; step += kAmxSteps) {
        const int64_t at = step * kParts * kCols;
        AddSteps<kParts>(a.a + at + i * kAmxSteps, a.b + at + j);
      }
      AmxStoreSums<true>(sums, kCols * 4);
    }
  }
  if constexpr (kParts > 1) SumNaNsAgain(a);
  AddSums(a);
}

constexpr GramForm kFormF32{.step_tokens = 2,
                            .step_unit = kAmxSteps,
                            .parts = kAmxParts,
                            .transposed = true,
                            .pack = PackTiles<F32Parts>,
                            .add_block = AddBlockAmx<F32Parts>};
constexpr GramForm kFormBF16{.step_tokens = 2,
                             .step_unit = kAmxSteps,
                             .transposed = true,
                             .pack = PackTiles<BF16Pairs>,
                             .add_block = AddBlockAmx<BF16Pairs>};
#else
constexpr GramForm kFormF32{.pack = PackWide<false>, .add_block = AddBlock<StepF32>};
#if defined(__AVX512BF16__)
constexpr GramForm kFormBF16{.step_tokens = 2, .pack = PackPairs, .add_block = AddBlock<StepPairs>};
#else
constexpr GramForm kFormBF16{.pack = PackWide<true>, .add_block = AddBlock<StepF32>};
#endif
#endif

}  // namespace

extern const GramKernels kGramKernels;
const GramKernels kGramKernels = {.panel_cols = kCols, .f32 = kFormF32, .bf16 = kFormBF16};

}  // namespace quantmill::cpu::QUANTMILL_ISA
