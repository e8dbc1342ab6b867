// Scales and offsets of one group of weighted numbers. Private to formats/.
//
// For given codes, the best scale and offset follow from least squares; for a given scale and
// offset, the best codes are the nearest. Alternating the two descends to a local minimum, so the
// searches start from a grid of scales and go on from the best few. All sums run in four fixed
// lanes: fast, and the same on every machine.
#ifndef QUANTMILL_FORMATS_GGUF_FIT_H_
#define QUANTMILL_FORMATS_GGUF_FIT_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

#include "kernels/core/dtype.h"

namespace quantmill::fit {

inline constexpr size_t kLanes =
    4;  // wider vectors are taken apart where the hardware has 16 bytes
inline constexpr float kNoFit = std::numeric_limits<float>::infinity();

// Four numbers that are computed with side by side.
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));
using IntLanes = int32_t __attribute__((vector_size(kLanes * sizeof(float))));

inline Lanes Load(const float* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}
inline void Store(const Lanes& lanes, float* to) { std::memcpy(to, &lanes, sizeof(lanes)); }
inline float Sum(const Lanes& lanes) { return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]); }

// n numbers and their weights; n is a multiple of kLanes. Borrowed.
template <size_t n>
struct Group {
  const float* x;
  const float* w;
};

// Sum of term(i) over the lanes at i = 0, kLanes, ...
template <size_t n, typename Term>
float LaneSum(Term&& term) {
  Lanes lanes = {};
  for (size_t i = 0; i < n; i += kLanes) lanes += term(i);
  return Sum(lanes);
}

// The levels low, low + 1, ..., high, all integers.
struct UniformLevels {
  float low;
  float high;

  Lanes Nearest(Lanes v) const {
    v = v < high ? v : Lanes{} + high;  // in this order NaN becomes a level too
    v = v > low ? v : Lanes{} + low;
    return __builtin_convertvector(__builtin_convertvector(v - low + 0.5f, IntLanes), Lanes) + low;
  }
  int IndexOf(float level) const { return static_cast<int>(level - low); }
};

// Any ascending levels of small integers.
template <size_t count>
struct TableLevels {
  std::array<float, count> levels;

  explicit constexpr TableLevels(const std::array<int8_t, count>& table) : levels() {
    for (size_t i = 0; i < count; ++i) levels[i] = static_cast<float>(table[i]);
  }
  Lanes Nearest(Lanes v) const {
    Lanes level = Lanes{} + levels[0];
    for (size_t i = 1; i < count; ++i) {
      const float middle = (levels[i - 1] + levels[i]) * 0.5f;
      level = v > middle ? Lanes{} + levels[i] : level;
    }
    return level;
  }
  int IndexOf(float level) const {
    return static_cast<int>(std::find(levels.begin(), levels.end(), level) - levels.begin());
  }
};

// 1 / scale, or 0 for 0; bounded, so that no product with it is NaN.
inline float Inverse(float scale) {
  if (scale == 0.0f) return 0.0f;
  return std::clamp(1.0f / scale, -1e30f, 1e30f);
}

// The levels nearest to (x - offset) / scale.
template <size_t n, typename Levels>
void Choose(const Group<n>& group, const Levels& levels, float inverse, float offset, float* out) {
  for (size_t i = 0; i < n; i += kLanes) {
    Store(levels.Nearest((Load(group.x + i) - offset) * inverse), out + i);
  }
}

template <size_t n>
float ErrorOf(const Group<n>& group, const float* chosen, float scale, float offset) {
  return LaneSum<n>([&](size_t i) {
    const Lanes difference = Load(group.x + i) - offset - scale * Load(chosen + i);
    return Load(group.w + i) * difference * difference;
  });
}

// Error with the nearest levels.
template <size_t n, typename Levels>
float NearestError(const Group<n>& group, const Levels& levels, float scale, float offset) {
  const float inverse = Inverse(scale);
  return LaneSum<n>([&](size_t i) {
    const Lanes x = Load(group.x + i) - offset;
    const Lanes difference = x - scale * levels.Nearest(x * inverse);
    return Load(group.w + i) * difference * difference;
  });
}

// Weighted sums over the levels l chosen for a group, and its numbers x.
struct Moments {
  float w = 0, l = 0, x = 0, ll = 0, lx = 0;
};

template <size_t n>
Moments MomentsOf(const Group<n>& group, const float* chosen) {
  Lanes w = {}, l = {}, x = {}, ll = {}, lx = {};
  for (size_t i = 0; i < n; i += kLanes) {
    const Lanes weight = Load(group.w + i);
    const Lanes level = Load(chosen + i);
    const Lanes number = Load(group.x + i);
    w += weight;
    l += weight * level;
    x += weight * number;
    ll += weight * level * level;
    lx += weight * level * number;
  }
  return {Sum(w), Sum(l), Sum(x), Sum(ll), Sum(lx)};
}

// x = scale * level + offset with this weighted squared error.
struct Fit {
  float scale = 0;
  float offset = 0;
  float error = kNoFit;
};

// Which offsets a format can store.
enum class Offset { kNone, kNotPositive, kAny };

// The best scale and offset for the levels `chosen`.
template <size_t n>
Fit Solve(const Group<n>& group, const float* chosen, Offset allowed) {
  const Moments m = MomentsOf(group, chosen);
  Fit fit;
  fit.scale = m.ll > 0.0f ? m.lx / m.ll : 0.0f;
  if (allowed != Offset::kNone) {
    // In double: the difference of nearly equal products is what counts.
    const double determinant = double{m.w} * m.ll - double{m.l} * m.l;
    if (determinant > 1e-7 * double{m.w} * m.ll) {
      const double scale = (double{m.w} * m.lx - double{m.l} * m.x) / determinant;
      const double offset = (double{m.x} - scale * m.l) / m.w;
      if (allowed == Offset::kAny || offset <= 0.0) {
        fit.scale = static_cast<float>(scale);
        fit.offset = static_cast<float>(offset);
      }
    } else if (m.w > 0.0f && (allowed == Offset::kAny || m.x <= 0.0f)) {
      fit.scale = 0.0f;  // one level, or all weight on one element
      fit.offset = m.x / m.w;
    }
  }
  fit.error = ErrorOf(group, chosen, fit.scale, fit.offset);
  return fit;
}

// The best `kKept` of the fits offered, best first.
class Leaders {
 public:
  static constexpr size_t kKept = 3;

  void Offer(const Fit& fit) {
    size_t at = kKept;
    while (at > 0 && fit.error < fits_[at - 1].error) --at;
    if (at == kKept || (at > 0 && fit.error == fits_[at - 1].error)) return;
    for (size_t i = kKept - 1; i > at; --i) fits_[i] = fits_[i - 1];
    fits_[at] = fit;
  }
  const std::array<Fit, kKept>& fits() const { return fits_; }

 private:
  std::array<Fit, kKept> fits_;
};

// Alternates nearest levels and least squares while that helps.
template <size_t n, typename Levels>
Fit Descend(const Group<n>& group, const Levels& levels, Offset allowed, Fit fit) {
  constexpr int kRounds = 4;
  float chosen[n];
  for (int round = 0; round < kRounds && fit.error < kNoFit; ++round) {
    Choose(group, levels, Inverse(fit.scale), fit.offset, chosen);
    const Fit next = Solve(group, chosen, allowed);
    if (!(next.error < fit.error)) break;
    fit = next;
  }
  return fit;
}

template <size_t n, typename Levels>
Fit DescendFromLeaders(const Group<n>& group, const Levels& levels, Offset allowed,
                       const Leaders& leaders) {
  Fit best;
  for (const Fit& start : leaders.fits()) {
    const Fit fit = Descend(group, levels, allowed, start);
    if (fit.error < best.error) best = fit;
  }
  return best;
}

// At which level the element of largest magnitude is put, from first to last.
struct Targets {
  float first;
  float last;
  int count;
  bool both_signs;
};

// x = scale * level.
template <size_t n, typename Levels>
Fit FitScale(const Group<n>& group, const Levels& levels, const Targets& targets) {
  float largest = 0;
  for (size_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(group.x[i]));
  if (largest == 0.0f) return {0.0f, 0.0f, 0.0f};
  const float step = (targets.last - targets.first) / static_cast<float>(targets.count - 1);
  Leaders leaders;
  float chosen[n];
  for (int i = 0; i < targets.count; ++i) {
    const float inverse = (targets.first + step * static_cast<float>(i)) / largest;
    for (const float sign : {1.0f, -1.0f}) {
      if (sign < 0 && !targets.both_signs) continue;
      Choose(group, levels, sign * inverse, 0.0f, chosen);
      leaders.Offer(Solve(group, chosen, Offset::kNone));
    }
  }
  return DescendFromLeaders(group, levels, Offset::kNone, leaders);
}

// x = scale * level + offset, levels 0 to max_code, scale >= 0.
template <size_t n>
Fit FitAffine(const Group<n>& group, int max_code, Offset allowed) {
  float low = *std::min_element(group.x, group.x + n);
  const float high = *std::max_element(group.x, group.x + n);
  if (allowed == Offset::kNotPositive) low = std::min(low, 0.0f);
  const UniformLevels levels{0.0f, static_cast<float>(max_code)};
  if (high <= low) {  // constant, or nothing above an offset of zero
    const Fit fit{0.0f, low, 0.0f};
    return {fit.scale, fit.offset, NearestError(group, levels, 0.0f, low)};
  }
  // How many steps the ends of the range are pulled in. Few levels clip much.
  static constexpr float kPulls[] = {-0.35f, 0.0f, 0.35f, 0.7f, 1.1f};
  const float pull = max_code < 8 ? 0.6f : 1.0f;
  const float step = (high - low) / static_cast<float>(max_code);
  Leaders leaders;
  float chosen[n];
  for (const float at_low : kPulls) {
    for (const float at_high : kPulls) {
      const float begin = low + at_low * pull * step;
      const float end = high - at_high * pull * step;
      Choose(group, levels, static_cast<float>(max_code) / (end - begin), begin, chosen);
      const Fit fit = Solve(group, chosen, allowed);
      if (fit.scale >= 0.0f) leaders.Offer(fit);
    }
  }
  return DescendFromLeaders(group, levels, allowed, leaders);
}

// A scale as the file stores it, and as the scaled samples see it.
struct StoredScale {
  F16 bits;
  float value = 0;

  static StoredScale FromBits(F16 bits, int exponent) {
    return {bits, std::ldexp(ToFloat(bits), -exponent)};
  }
  // Nearest, saturating: an infinite scale would make every value infinite or NaN.
  static StoredScale Round(float scale, int exponent) {
    constexpr float kLargest = 65504.0f;
    const float unscaled = std::ldexp(scale, exponent);
    return FromBits(ToF16(std::clamp(unscaled, -kLargest, kLargest)), exponent);
  }
  // The next larger or smaller magnitude (steps of +-1); itself at the ends.
  StoredScale Neighbour(int step, int exponent) const {
    const int magnitude = (bits.bits & 0x7FFF) + step;
    if (magnitude < 0 || magnitude >= 0x7C00) return *this;
    return FromBits(F16{static_cast<uint16_t>((bits.bits & 0x8000) | magnitude)}, exponent);
  }
};

}  // namespace quantmill::fit

#endif  // QUANTMILL_FORMATS_GGUF_FIT_H_
