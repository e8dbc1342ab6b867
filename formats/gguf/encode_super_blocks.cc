// Encoding of super-blocks: the sub-blocks' scales and mins are first found freely, then d and dmin
// such that their integer multiples come near, then the multiples and codes at the true error, and
// d and dmin again by least squares over all of the super-block, as long as that helps.
#include <cmath>

#include "formats/gguf/encode.h"
#include "formats/gguf/fit.h"

namespace quantmill {
namespace {

using fit::Fit;
using fit::Group;
using fit::Offset;
using fit::StoredScale;
using fit::Targets;
using fit::UniformLevels;

constexpr int kRounds = 4;

template <size_t n>
Group<n> SubGroup(const Samples<kSuperBlock>& samples, size_t t) {
  return {&samples.x[t * n], &samples.w[t * n]};
}

// A number that is to become an integer multiple of a common scale, and what an error of it costs:
// cost * error^2.
struct Multiple {
  float value = 0;
  float cost = 0;
};

// `value` as a multiple of `scale`, not rounded.
float Times(float value, float scale) { return scale == 0.0f ? 0.0f : value / scale; }

template <size_t count>
float CostOf(const std::array<Multiple, count>& numbers, float scale, float low, float high) {
  float cost = 0;
  for (const Multiple& number : numbers) {
    const float times = std::clamp(std::round(Times(number.value, scale)), low, high);
    const float error = number.value - times * scale;
    cost += number.cost * error * error;
  }
  return cost;
}

// The common scale of least cost that puts the number of largest magnitude at a multiple between
// `end` and a little less of it; 0 if all numbers are 0. low, high: the legal multiples.
template <size_t count>
float CommonScale(const std::array<Multiple, count>& numbers, float end, float low, float high) {
  constexpr int kSteps = 32;
  constexpr float kShare = 0.2f;  // of the multiples that may go unused
  float largest = 0;
  for (const Multiple& number : numbers) {
    if (std::fabs(number.value) > std::fabs(largest)) largest = number.value;
  }
  float best = largest / end;
  float best_cost = CostOf(numbers, best, low, high);
  for (int i = 1; i <= kSteps; ++i) {
    const float scale = largest / (end * (1.0f - kShare * static_cast<float>(i) / kSteps));
    const float cost = CostOf(numbers, scale, low, high);
    if (cost < best_cost) {
      best = scale;
      best_cost = cost;
    }
  }
  return best;
}

// --- d * scale * code - dmin * min --------------------------------------------------------------

template <typename Block>
class AffineEncoder {
 public:
  explicit AffineEncoder(const Samples<kSuperBlock>& samples) : samples_(samples) {
    for (size_t t = 0; t < kCount; ++t) FitSubBlock(t);
  }

  void Encode(Block& block) {
    const float most = Block::kMaxScale;
    TryFrom(CommonScale(scales_, most, 0, most), CommonScale(mins_, most, 0, most));
    TryFrom(CommonScale(scales_, most, most, most), CommonScale(mins_, most, most, most));
    Store(block);
  }

 private:
  static constexpr size_t kCount = Block::kSubBlocks;
  static constexpr size_t kSize = kSuperBlock / kCount;
  static constexpr UniformLevels kLevels{0.0f, Block::kMaxCode};

  struct State {
    StoredScale d;
    StoredScale dmin;
    std::array<float, kCount> scales{};
    std::array<float, kCount> mins{};
    double error = fit::kNoFit;
  };

  void FitSubBlock(size_t t) {
    const Group<kSize> group = SubGroup<kSize>(samples_, t);
    const Fit found = fit::FitAffine(group, Block::kMaxCode, Offset::kNotPositive);
    float chosen[kSize];
    fit::Choose(group, kLevels, fit::Inverse(found.scale), found.offset, chosen);
    const fit::Moments m = fit::MomentsOf(group, chosen);
    mean_level_[t] = m.w > 0 ? m.l / m.w : 0;
    // Around the mean: an error of the scale moves the offset along.
    scales_[t] = {found.scale, std::max(0.0f, m.ll - m.l * mean_level_[t])};
    mins_[t] = {-found.offset, m.w};
  }

  // The best multiples of one sub-block, near those of its own fit.
  void ChooseMultiples(size_t t, State& state) const {
    const Group<kSize> group = SubGroup<kSize>(samples_, t);
    constexpr float kMost = Block::kMaxScale;
    const float scale_center = std::round(Times(scales_[t].value, state.d.value));
    float best_error = fit::kNoFit;
    for (const float scale_step : {0.0f, -1.0f, 1.0f}) {
      const float times = std::clamp(scale_center + scale_step, 0.0f, kMost);
      const float scale = times * state.d.value;
      const float min = mins_[t].value + (scale - scales_[t].value) * mean_level_[t];
      const float min_center = std::round(Times(min, state.dmin.value));
      for (const float min_step : {0.0f, -1.0f, 1.0f}) {
        const float min_times = std::clamp(min_center + min_step, 0.0f, kMost);
        const float error = fit::NearestError(group, kLevels, scale, -min_times * state.dmin.value);
        if (error < best_error) {
          best_error = error;
          state.scales[t] = times;
          state.mins[t] = min_times;
        }
      }
    }
    state.error += best_error;
  }

  // d and dmin by least squares for the multiples of `state` and their nearest codes.
  bool Refit(const State& state, float& d, float& dmin) const {
    double aa = 0, ab = 0, bb = 0, ax = 0, bx = 0;  // a: scale * code, b: -min
    for (size_t t = 0; t < kCount; ++t) {
      const Group<kSize> group = SubGroup<kSize>(samples_, t);
      float chosen[kSize];
      fit::Choose(group, kLevels, fit::Inverse(state.scales[t] * state.d.value),
                  -state.mins[t] * state.dmin.value, chosen);
      const fit::Moments m = fit::MomentsOf(group, chosen);
      const double scale = state.scales[t];
      const double min = -double{state.mins[t]};
      aa += scale * scale * m.ll;
      ab += scale * min * m.l;
      bb += min * min * m.w;
      ax += scale * m.lx;
      bx += min * m.x;
    }
    const double determinant = aa * bb - ab * ab;
    if (bb == 0 && aa > 0) {
      d = static_cast<float>(ax / aa);
      dmin = 0;
    } else if (determinant > 1e-9 * aa * bb) {
      d = static_cast<float>((ax * bb - bx * ab) / determinant);
      dmin = static_cast<float>((bx * aa - ax * ab) / determinant);
    } else {
      return false;
    }
    return d >= 0 && dmin >= 0;
  }

  void TryFrom(float d, float dmin) {
    for (int round = 0; round < kRounds; ++round) {
      State state;
      state.d = StoredScale::Round(d, samples_.exponent);
      state.dmin = StoredScale::Round(dmin, samples_.exponent);
      state.error = 0;
      for (size_t t = 0; t < kCount; ++t) ChooseMultiples(t, state);
      const bool better = state.error < best_.error;
      if (better) best_ = state;
      if ((!better && round > 0) || !Refit(state, d, dmin)) return;
    }
  }

  void Store(Block& block) const {
    block.d = best_.d.bits;
    block.dmin = best_.dmin.bits;
    for (size_t t = 0; t < kCount; ++t) {
      block.scales[t] = static_cast<uint8_t>(best_.scales[t]);
      block.mins[t] = static_cast<uint8_t>(best_.mins[t]);
      float chosen[kSize];
      fit::Choose(SubGroup<kSize>(samples_, t), kLevels,
                  fit::Inverse(best_.scales[t] * best_.d.value), -best_.mins[t] * best_.dmin.value,
                  chosen);
      for (size_t i = 0; i < kSize; ++i) {
        block.codes[t * kSize + i] = static_cast<uint8_t>(kLevels.IndexOf(chosen[i]));
      }
    }
  }

  const Samples<kSuperBlock>& samples_;
  std::array<Multiple, kCount> scales_;
  std::array<Multiple, kCount> mins_;
  std::array<float, kCount> mean_level_{};
  State best_;
};

// --- d * scale * (code - zero) ------------------------------------------------------------------

template <typename Block>
class CenteredEncoder {
 public:
  CenteredEncoder(const Samples<kSuperBlock>& samples, const Targets& targets) : samples_(samples) {
    for (size_t t = 0; t < kCount; ++t) FitSubBlock(t, targets);
  }

  void Encode(Block& block) {
    constexpr float kLow = Block::kMinScale;
    constexpr float kHigh = Block::kMaxScale;
    // The largest scale may become a multiple of either sign.
    TryFrom(CommonScale(scales_, kLow, kLow, kHigh));
    TryFrom(CommonScale(scales_, kHigh, kLow, kHigh));
    Store(block);
  }

 private:
  static constexpr size_t kCount = Block::kSubBlocks;
  static constexpr size_t kSize = kSuperBlock / kCount;
  static constexpr UniformLevels kLevels{-Block::kZero, Block::kZero - 1};

  struct State {
    StoredScale d;
    std::array<float, kCount> scales{};
    double error = fit::kNoFit;
  };

  void FitSubBlock(size_t t, const Targets& targets) {
    const Group<kSize> group = SubGroup<kSize>(samples_, t);
    const Fit found = fit::FitScale(group, kLevels, targets);
    float chosen[kSize];
    fit::Choose(group, kLevels, fit::Inverse(found.scale), 0.0f, chosen);
    scales_[t] = {found.scale, fit::MomentsOf(group, chosen).ll};
  }

  void ChooseMultiple(size_t t, State& state) const {
    const Group<kSize> group = SubGroup<kSize>(samples_, t);
    const float center = std::round(Times(scales_[t].value, state.d.value));
    float best_error = fit::kNoFit;
    for (const float step : {0.0f, -1.0f, 1.0f}) {
      const float times = std::clamp<float>(center + step, Block::kMinScale, Block::kMaxScale);
      const float error = fit::NearestError(group, kLevels, times * state.d.value, 0.0f);
      if (error < best_error) {
        best_error = error;
        state.scales[t] = times;
      }
    }
    state.error += best_error;
  }

  // d by least squares, or the same if no code is left that depends on it.
  float Refit(const State& state) const {
    double ll = 0, lx = 0;
    for (size_t t = 0; t < kCount; ++t) {
      const Group<kSize> group = SubGroup<kSize>(samples_, t);
      float chosen[kSize];
      fit::Choose(group, kLevels, fit::Inverse(state.scales[t] * state.d.value), 0.0f, chosen);
      const fit::Moments m = fit::MomentsOf(group, chosen);
      const double scale = state.scales[t];
      ll += scale * scale * m.ll;
      lx += scale * m.lx;
    }
    return ll > 0 ? static_cast<float>(lx / ll) : state.d.value;
  }

  void TryFrom(float d) {
    for (int round = 0; round < kRounds; ++round) {
      State state;
      state.d = StoredScale::Round(d, samples_.exponent);
      state.error = 0;
      for (size_t t = 0; t < kCount; ++t) ChooseMultiple(t, state);
      const bool better = state.error < best_.error;
      if (better) best_ = state;
      if (!better && round > 0) return;
      d = Refit(state);
    }
  }

  void Store(Block& block) const {
    block.d = best_.d.bits;
    for (size_t t = 0; t < kCount; ++t) {
      block.scales[t] = static_cast<int8_t>(best_.scales[t]);
      float chosen[kSize];
      fit::Choose(SubGroup<kSize>(samples_, t), kLevels,
                  fit::Inverse(best_.scales[t] * best_.d.value), 0.0f, chosen);
      for (size_t i = 0; i < kSize; ++i) {
        block.codes[t * kSize + i] = static_cast<uint8_t>(kLevels.IndexOf(chosen[i]));
      }
    }
  }

  const Samples<kSuperBlock>& samples_;
  std::array<Multiple, kCount> scales_;
  State best_;
};

}  // namespace

void Encode(const Samples<kSuperBlock>& samples, BlockQ2K& block) {
  AffineEncoder<BlockQ2K>(samples).Encode(block);
}
void Encode(const Samples<kSuperBlock>& samples, BlockQ4K& block) {
  AffineEncoder<BlockQ4K>(samples).Encode(block);
}
void Encode(const Samples<kSuperBlock>& samples, BlockQ5K& block) {
  AffineEncoder<BlockQ5K>(samples).Encode(block);
}
void Encode(const Samples<kSuperBlock>& samples, BlockQ3K& block) {
  CenteredEncoder<BlockQ3K>(samples, {2.0f, 4.45f, 20, true}).Encode(block);
}
void Encode(const Samples<kSuperBlock>& samples, BlockQ6K& block) {
  CenteredEncoder<BlockQ6K>(samples, {26.0f, 32.45f, 20, true}).Encode(block);
}

}  // namespace quantmill
