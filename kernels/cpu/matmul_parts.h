// MatMul of F32 numbers as sums of BF16 products (Compute::kBF16x3), in the tiles of AMX. Only for
// *_isa.cc sources (isa.h), and only where the instruction set has AMX.
//
// A step is two inputs. Sixteen of them lie together: of 32 rows of x as [part][row][step], so that
// a tile is whole cache lines of one page; of a panel of w as [part][step][column], with as many
// parts as its numbers have.
#ifndef QUANTMILL_KERNELS_CPU_MATMUL_PARTS_H_
#define QUANTMILL_KERNELS_CPU_MATMUL_PARTS_H_

#include "kernels/cpu/amx_tiles.h"
#include "kernels/cpu/panel_reader.h"

namespace quantmill::cpu::QUANTMILL_ISA {

#if defined(__AMX_BF16__)

// Bits of the numbers of a type.
constexpr int SignificandBits(PanelType type) {
  switch (type) {
    case PanelType::kF32:
      return 24;
    case PanelType::kF16:
      return 11;
    case PanelType::kBF16:
    case PanelType::kBF16Pairs:
    case PanelType::kIq4Nl:
    case PanelType::kI8:  // less a zero point, too
      return 8;
    case PanelType::kI4:
    case PanelType::kF8:
      return 4;
    case PanelType::kF4:
      return 2;
  }
  return 24;
}

// Parts that hold the panel's weights exactly.
inline int WeightParts(const Panel& panel) {
  const bool codes = panel.group_size > 0;
  const int bits = SignificandBits(panel.type) + (codes ? SignificandBits(panel.scale_type) : 0);
  const int parts = (bits + 7) / 8;
  return parts < kAmxParts ? parts : kAmxParts;
}

constexpr int64_t kXPart = kAmxSide * kAmxSteps;  // words of one part of 32 rows

// x: [count] F32.  words: the row's first ones.
inline void SplitRow(const float* x, int64_t count, float* words) {
  for (int64_t k = 0; k < count; k += 2 * kLanes, words += kAmxParts * kXPart) {
    Vec first;
    Vec second;
    if (k + 2 * kLanes <= count) {
      first = Load(x + k);
      second = Load(x + k + kLanes);
    } else {
      float tail[2 * kLanes] = {};
      std::memcpy(tail, x + k, static_cast<size_t>(count - k) * sizeof(float));
      first = Load(tail);
      second = Load(tail + kLanes);
    }
    const SplitVecs parts = Split<kAmxParts, RestOfInfinity::kNaN>(first, second);
    for (int p = 0; p < kAmxParts; ++p) {
      _mm512_storeu_si512(words + p * kXPart, parts.part[p]);
    }
  }
}

template <int kParts, typename AnyReader>
void UnpackPartsFrom(const AnyReader& reader, int64_t begin, int64_t count, float* w) {
  constexpr int64_t kPartFloats = kAmxSteps * kTileCols;
  const auto at = [w](int64_t step, int part) {
    const int64_t group = step / kAmxSteps * kParts + part;
    return w + group * kPartFloats + step % kAmxSteps * kTileCols;
  };
  ForEachPair(reader, begin, count, [&](int64_t step, int v, Vec even, Vec odd) {
    const SplitVecs parts = Split<kParts, RestOfInfinity::kNaN>(even, odd);
    for (int p = 0; p < kParts; ++p) {
      _mm512_storeu_si512(at(step, p) + v * kLanes, Interleaved(parts.part[p]));
    }
  });
  for (int64_t step = (count + 1) / 2; step % kAmxSteps != 0; ++step) {
    for (int p = 0; p < kParts; ++p) std::memset(at(step, p), 0, kTileCols * sizeof(float));
  }
}

// Inputs [begin, begin + count) of the panel, zero up to whole sixteens of steps.
inline void UnpackParts(const Panel& panel, int64_t begin, int64_t count, void* w) {
  auto* to = static_cast<float*>(w);
  WithReader(panel, [&](const auto& reader) {
    switch (WeightParts(panel)) {
      case 1:
        return UnpackPartsFrom<1>(reader, begin, count, to);
      case 2:
        return UnpackPartsFrom<2>(reader, begin, count, to);
      default:
        return UnpackPartsFrom<3>(reader, begin, count, to);
    }
  });
}

template <int kWParts, bool kTwo>
void PartsTile(const TileArgs& a) {
  constexpr int64_t kWPart = kAmxSteps * kTileCols;
  const AmxTiles tiles(a.rows);
  for (int64_t c = 0; c < kTileCols; c += kAmxSide) {
    AmxLoadSums<kTwo>(a.resume, a.sums + c, kTileCols * 4);
    for (int64_t step = 0; step < a.steps; step += kAmxSteps) {
      const char* ahead = static_cast<const char*>(a.ahead) + (step + c / 4) * 64;
      for (int64_t line = 0; line < kAmxSteps / 2; ++line) {
        __builtin_prefetch(ahead + line * 64, 0, 2);
      }
      const int64_t group = step / kAmxSteps;
      const char* x = static_cast<const char*>(a.x) + group * kAmxParts * kXPart * 4;
      const char* w = static_cast<const char*>(a.w) + group * kWParts * kWPart * 4 + c * 4;
      AmxAddParts<kWParts, kTwo>({{x, kAmxSteps * 4, w, kTileCols * 4}, kXPart * 4, kWPart * 4});
    }
    AmxStoreSums<kTwo>(a.sums + c, kTileCols * 4);
  }
}

template <int kWParts>
void PartsTileOf(const TileArgs& a) {
  a.rows > kAmxSide / 2 ? PartsTile<kWParts, true>(a) : PartsTile<kWParts, false>(a);
}

inline void TileParts(const TileArgs& a) {
  switch (a.w_parts) {
    case 1:
      return PartsTileOf<1>(a);
    case 2:
      return PartsTileOf<2>(a);
    default:
      return PartsTileOf<3>(a);
  }
}

#endif

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_MATMUL_PARTS_H_
