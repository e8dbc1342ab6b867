#include <array>
#include <cmath>
#include <iterator>
#include <utility>

#include "kernels/core/error.h"
#include "quant/transform/expected_error.h"

namespace quantmill {
namespace {

// Coordinate descent on log s. The objective is convex but has kinks (maxima), at which one
// coordinate alone may be stuck; a good start and steps from coarse to fine come close enough.
class Descent {
 public:
  Descent(const std::vector<NoiseTerm*>& terms, std::vector<float> start)
      : scales_(std::move(start)), start_(scales_), places_(scales_.size()) {
    for (NoiseTerm* term : terms) {
      term->SetScales(scales_);
      for (int64_t member = 0; member < term->members(); ++member) {
        places_[static_cast<size_t>(term->scale_of(member))].emplace_back(term, member);
      }
    }
  }

  std::vector<float> Run() {
    constexpr std::array kRatios = {2.0f, 1.4142135f, 1.1892071f, 1.0905077f, 1.0442738f};
    constexpr int kSweeps = 3;  // with each ratio, while they gain
    for (const float ratio : kRatios) {
      for (int sweep = 0; sweep < kSweeps; ++sweep) {
        if (!Sweep(ratio)) break;
      }
    }
    return std::move(scales_);
  }

 private:
  // Whether any scale moved.
  bool Sweep(float ratio) {
    bool moved = false;
    for (size_t j = 0; j < scales_.size(); ++j) {
      moved |= TryMove(j, ratio) || TryMove(j, 1 / ratio);
    }
    return moved;
  }

  bool TryMove(size_t j, float ratio) {
    constexpr float kReach = 256;  // from the start: dead channels would run away
    const float moved = scales_[j] * ratio;
    if (moved > start_[j] * kReach || moved * kReach < start_[j]) return false;
    double before = 0;
    double after = 0;
    for (const auto& [term, member] : places_[j]) {
      before += term->value();
      after += term->ValueWith(member, ratio);
    }
    if (!(after < before * (1 - 1e-9))) return false;
    for (const auto& [term, member] : places_[j]) term->Multiply(member, ratio);
    scales_[j] = moved;
    return true;
  }

  std::vector<float> scales_;
  const std::vector<float> start_;
  std::vector<std::vector<std::pair<NoiseTerm*, int64_t>>> places_;  // of each scale: term, member
};

}  // namespace

std::vector<float> ExpectedError::Balance(const std::vector<float>& start) {
  Check(std::ssize(start) == scales_, "Balance: one scale for each element");
  std::vector<NoiseTerm*> terms;
  terms.reserve(weights_.size() + inputs_.size());
  for (NoiseTerm& term : weights_) terms.push_back(&term);
  for (NoiseTerm& term : inputs_) terms.push_back(&term);
  return RoundScales(Normalized(Descent(terms, start).Run()));
}

}  // namespace quantmill
