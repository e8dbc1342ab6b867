// MatMul's kernels; compiled once per instruction set (isa.h).
#include <cstddef>
#include <new>

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/direct_rows.h"
#include "kernels/cpu/matmul_parts.h"
#include "kernels/cpu/panel_reader.h"
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

void Unpack(const Panel& panel, int64_t begin, int64_t count, void* w) {
  auto* to = static_cast<float*>(w);
  WithReader(panel, [&](const auto& reader) {
    if (panel.round_to_bf16) {
      UnpackFrom<true>(reader, begin, count, to);
    } else {
      UnpackFrom<false>(reader, begin, count, to);
    }
  });
}

#if defined(__AVX512BF16__)
[[gnu::noinline]] void UnpackPairs(const Panel& panel, int64_t begin, int64_t count, void* w) {
  WithReader(panel, [&](const auto& reader) {
    ForEachPair(reader, begin, count, [w](int64_t step, int v, Vec even, Vec odd) {
      const __m512bh pairs = Pairs(even, odd);
      std::memcpy(static_cast<uint32_t*>(w) + (step * kTileVectors + v) * kLanes, &pairs,
                  sizeof(pairs));
    });
  });
}
#endif

#if defined(__AMX_BF16__)
void UnpackLikeAmx(const Panel& panel, int64_t begin, int64_t count, void* w) {
  const NoSubnormals mode;
  UnpackPairs(panel, begin, count, w);
}
#endif

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

constexpr MatMulForm kFormF32{
    .tile_rows = kTileRows, .tile = Tile<StepF32>, .unpack = Unpack, .direct = Direct<DirectF32>};
#if defined(__AMX_BF16__)
constexpr MatMulForm kFormBF16{.tile_rows = kAmxSide,
                               .step_inputs = 2,
                               .tile = TilePairs,
                               .unpack = UnpackLikeAmx,
                               .direct = DirectLikeAmx};
constexpr MatMulForm kFormBF16x3{.tile_rows = kAmxSide,
                                 .step_inputs = 2,
                                 .step_unit = kAmxSteps,
                                 .parts = kAmxParts,
                                 .tile = TileParts,
                                 .unpack = UnpackParts,
                                 .weight_parts = WeightParts,
                                 .split_row = SplitRow,
                                 .has_nan = HasNaN};
#elif defined(__AVX512BF16__)
constexpr MatMulForm kFormBF16{.tile_rows = kTileRows,
                               .step_inputs = 2,
                               .tile = Tile<StepPairs>,
                               .unpack = UnpackPairs,
                               .direct = Direct<DirectPairs>,
                               .direct_pairs = true};
constexpr MatMulForm kFormBF16x3{};
#else
constexpr MatMulForm kFormBF16{};
constexpr MatMulForm kFormBF16x3{};
#endif

}  // namespace

extern const MatMulKernels kMatMulKernels;
const MatMulKernels kMatMulKernels = {
    .panel_cols = kTileCols,
    .direct_rows = kDirectRows,
    .f32 = kFormF32,
    .bf16 = kFormBF16,
    .bf16x3 = kFormBF16x3,
    .store = StoreTile,
    .widen = Widen,
};

}  // namespace quantmill::cpu::QUANTMILL_ISA
