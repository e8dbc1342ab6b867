// Encoding of blocks of 32.
#include <cmath>

#include "formats/gguf/encode.h"
#include "formats/gguf/fit.h"

namespace quantmill {
namespace {

using fit::Fit;
using fit::Offset;
using fit::StoredScale;
using fit::Targets;
using fit::UniformLevels;
using Group = fit::Group<kBlock>;

Group GroupOf(const Samples<kBlock>& samples) { return {samples.x.data(), samples.w.data()}; }

// The best F16 scale about `scale`: the nearest two and the one after decide at the true error.
template <typename Levels>
StoredScale BestStored(const Samples<kBlock>& samples, const Levels& levels, float scale) {
  const StoredScale rounded = StoredScale::Round(scale, samples.exponent);
  StoredScale best = rounded;
  float best_error = fit::kNoFit;
  for (const int step : {0, -1, 1}) {
    const StoredScale candidate = rounded.Neighbour(step, samples.exponent);
    const float error = fit::NearestError(GroupOf(samples), levels, candidate.value, 0.0f);
    if (error < best_error) {
      best = candidate;
      best_error = error;
    }
  }
  return best;
}

// Calls set(i, index of the nearest level) for each element.
template <typename Levels, typename Set>
void SetCodes(const Samples<kBlock>& samples, const Levels& levels, float scale, float offset,
              Set&& set) {
  float chosen[kBlock];
  fit::Choose(GroupOf(samples), levels, fit::Inverse(scale), offset, chosen);
  for (size_t i = 0; i < kBlock; ++i) set(i, levels.IndexOf(chosen[i]));
}

// Calls set likewise; returns d.
template <typename Levels, typename Set>
F16 EncodeScaled(const Samples<kBlock>& samples, const Levels& levels, const Targets& targets,
                 Set&& set) {
  const Fit found = fit::FitScale(GroupOf(samples), levels, targets);
  const StoredScale d = BestStored(samples, levels, found.scale);
  SetCodes(samples, levels, d.value, 0.0f, set);
  return d.bits;
}

template <GgmlType type, int zero>
void EncodeCentered(const Samples<kBlock>& samples, CenteredBlock<type, zero>& block) {
  const UniformLevels levels{-zero, zero - 1};
  const Targets targets{zero * (zero > 8 ? 0.8f : 0.65f), zero + 0.45f, 28, true};
  block.d = EncodeScaled(samples, levels, targets, [&](size_t i, int index) {
    block.codes[i] = static_cast<uint8_t>(index);
  });
}

// Offsets and scales round to F16 one after the other: each next one is fitted to what the ones
// before have become.
template <GgmlType type, int max_code>
void EncodeAffine(const Samples<kBlock>& samples, AffineBlock<type, max_code>& block) {
  const Group group = GroupOf(samples);
  const UniformLevels levels{0.0f, max_code};
  const Fit found = fit::FitAffine(group, max_code, Offset::kAny);
  const StoredScale d0 = StoredScale::Round(found.scale, samples.exponent);
  const StoredScale m0 = StoredScale::Round(found.offset, samples.exponent);
  StoredScale d = d0;
  StoredScale m = m0;
  float best_error = fit::kNoFit;
  for (const int d_step : {0, -1, 1}) {
    for (const int m_step : {0, -1, 1}) {
      const StoredScale scale = d0.Neighbour(d_step, samples.exponent);
      const StoredScale offset = m0.Neighbour(m_step, samples.exponent);
      const float error = fit::NearestError(group, levels, scale.value, offset.value);
      if (error < best_error) {
        d = scale;
        m = offset;
        best_error = error;
      }
    }
  }
  block.d = d.bits;
  block.m = m.bits;
  SetCodes(samples, levels, d.value, m.value,
           [&](size_t i, int index) { block.codes[i] = static_cast<uint8_t>(index); });
}

// E2M1's values in ascending order, doubled; its two zeros are one level.
constexpr std::array<int8_t, 15> kAscendingE2M1 = {-12, -8, -6, -4, -3, -2, -1, 0,
                                                   1,   2,  3,  4,  6,  8,  12};

uint8_t E2M1Code(int index) { return static_cast<uint8_t>(index < 7 ? 15 - index : index - 7); }

}  // namespace

void Encode(const Samples<kBlock>& samples, BlockQ4_0& block) { EncodeCentered(samples, block); }
void Encode(const Samples<kBlock>& samples, BlockQ5_0& block) { EncodeCentered(samples, block); }
void Encode(const Samples<kBlock>& samples, BlockQ4_1& block) { EncodeAffine(samples, block); }
void Encode(const Samples<kBlock>& samples, BlockQ5_1& block) { EncodeAffine(samples, block); }

void Encode(const Samples<kBlock>& samples, BlockQ8_0& block) {
  // -128 is left out: vector code that takes absolute values of codes overflows on it.
  const UniformLevels levels{-127.0f, 127.0f};
  const Targets targets{119.0f, 127.45f, 24, false};
  block.d = EncodeScaled(samples, levels, targets, [&](size_t i, int index) {
    block.codes[i] = static_cast<int8_t>(index - 127);
  });
}

void Encode(const Samples<kBlock>& samples, BlockIq4Nl& block) {
  static constexpr fit::TableLevels kLevels(kIq4NlLevels);
  const Targets targets{75.0f, 135.0f, 28, true};
  block.d = EncodeScaled(samples, kLevels, targets, [&](size_t i, int index) {
    block.codes[i] = static_cast<uint8_t>(index);
  });
}

void Encode(const Samples<kBlock>& samples, BlockMxfp4& block) {
  static constexpr fit::TableLevels kLevels(kAscendingE2M1);
  block = BlockMxfp4();
  if (samples.zero()) return;
  // The specification's exponent comes first: it puts the largest element between 4 and 8, of which
  // above 6 is clipped; twice the scale clips nothing, half of it is finer where that pays.
  const float largest = *std::max_element(samples.x.begin(), samples.x.end(), [](float a, float b) {
    return std::fabs(a) < std::fabs(b);
  });
  const int specified = std::ilogb(largest) + samples.exponent - 2 + 127;
  float best_error = fit::kNoFit;
  float best_scale = 0;
  for (const int step : {0, 1, -1}) {
    const int exponent = std::clamp(specified + step, 0, 254);
    const float scale = std::ldexp(1.0f, exponent - 128 - samples.exponent);
    const float error = fit::NearestError(GroupOf(samples), kLevels, scale, 0.0f);
    if (error < best_error) {
      best_error = error;
      best_scale = scale;
      block.exponent = static_cast<uint8_t>(exponent);
    }
  }
  SetCodes(samples, kLevels, best_scale, 0.0f,
           [&](size_t i, int index) { block.codes[i] = E2M1Code(index); });
}

}  // namespace quantmill
