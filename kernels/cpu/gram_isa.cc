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

// Columns [c, c + kLanes) of a token, zero from `cols` on.
Vec LoadToken(const GramPackArgs& a, int64_t token, int c) {
  const Vec x = LoadElements(a.x, a.bf16, token * a.x_row + c, a.cols - c);
  if (a.minus == nullptr) return x;
  return x - LoadElements(a.minus, a.bf16, token * a.minus_row + c, a.cols - c);
}

#if defined(__AVX512BF16__)
// As what is stored in a pair: the bits of x itself are BF16 already.
Vec LoadRounded(const GramPackArgs& a, int64_t token, int c) {
  const Vec x = LoadToken(a, token, c);
  if (a.minus == nullptr) return x;
  uint16_t lanes[kLanes];
  StoreBF16(lanes, x);
  return LoadBF16(lanes);
}

// Tokens t and t + 1: the bits of a widened BF16 are in the high half of its lane.
Vec LoadTokenPair(const GramPackArgs& a, int64_t token, int c) {
  const Vec first = LoadRounded(a, token, c);
  const Vec second = token + 1 < a.tokens ? LoadRounded(a, token + 1, c) : Zero();
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(first), 16);
  return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(second)));
}
#endif

void Pack(const GramPackArgs& a) {
#if defined(__AVX512BF16__)
  if (a.bf16) {
    for (int64_t t = 0; t < a.tokens; t += 2) {
      for (int c = 0; c < kCols; c += kLanes) {
        Store(a.panel + t / 2 * kCols + c, LoadTokenPair(a, t, c));
      }
    }
#if defined(__AMX_BF16__)
    const int64_t steps = (a.tokens + 1) / 2;
    const int64_t padded = (steps + kAmxSteps - 1) / kAmxSteps * kAmxSteps;
    std::memset(a.panel + steps * kCols, 0, static_cast<size_t>((padded - steps) * kCols) * 4);
    Transpose(a.panel, kCols, padded, kCols, a.transposed, a.transposed_row);
#endif
    return;
  }
#endif
  for (int64_t t = 0; t < a.tokens; ++t) {
    for (int c = 0; c < kCols; c += kLanes) Store(a.panel + t * kCols + c, LoadToken(a, t, c));
  }
}

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
  const int first = a.a == a.b ? row / kLanes : 0;
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
  const bool diagonal = a.a == a.b;
  for (int i = 0; i < a.rows; ++i) {
    AddRow(a.sums + i * kCols, diagonal ? i : 0, a.cols, a.gram + i * a.gram_row);
  }
}

#if defined(__AMX_BF16__)
void AddBlockAmx(const GramBlockArgs& a) {
  const AmxTiles tiles(kAmxSide);
  const bool diagonal = a.a == a.b;
  for (int64_t i = 0; i < a.rows; i += kAmxSide) {
    for (int64_t j = diagonal ? i : 0; j < a.cols; j += kAmxSide) {
      const AmxOperands operands{
          reinterpret_cast<const char*>(a.a_transposed + i * a.transposed_row),
          a.transposed_row * 4, reinterpret_cast<const char*>(a.b + j), kCols * 4};
      float* sums = a.sums + i * kCols + j;
      AmxLoadSums<true>(false, sums, kCols * 4);
      for (int64_t step = 0; step < a.steps; step += kAmxSteps) AmxStep<true>(operands, step);
      AmxStoreSums<true>(sums, kCols * 4);
    }
  }
  for (int i = 0; i < a.rows; ++i) {
    AddRow(a.sums + i * kCols, diagonal ? i : 0, a.cols, a.gram + i * a.gram_row);
  }
}

constexpr bool kPairs = true;
constexpr bool kTransposed = true;
constexpr int64_t kStepUnit = kAmxSteps;
constexpr auto* kAddBlockPairs = AddBlockAmx;
#elif defined(__AVX512BF16__)
constexpr bool kPairs = true;
constexpr bool kTransposed = false;
constexpr int64_t kStepUnit = 1;
constexpr auto* kAddBlockPairs = AddBlock<StepPairs>;
#else
constexpr bool kTransposed = false;
constexpr int64_t kStepUnit = 1;
constexpr bool kPairs = false;
constexpr std::nullptr_t kAddBlockPairs = nullptr;
#endif

}  // namespace

extern const GramKernels kGramKernels;
const GramKernels kGramKernels = {
    .panel_cols = kCols,
    .pairs = kPairs,
    .transposed = kTransposed,
    .step_unit = kStepUnit,
    .pack = Pack,
    .add_block = AddBlock<StepF32>,
    .add_block_pairs = kAddBlockPairs,
};

}  // namespace quantmill::cpu::QUANTMILL_ISA
