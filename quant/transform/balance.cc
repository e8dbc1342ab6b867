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
  Descent(const FoldProblem& problem, std::vector<float> start)
      : scales_(std::move(start)), start_(scales_), terms_(WeightTerms(problem)) {
    for (NoiseTerm& term : InputTerms(problem)) terms_.push_back(std::move(term));
    places_.resize(scales_.size());
    for (size_t t = 0; t < terms_.size(); ++t) {
      terms_[t].SetScales(scales_);
      for (int64_t member = 0; member < terms_[t].members(); ++member) {
        places_[static_cast<size_t>(terms_[t].scale_of(member))].emplace_back(t, member);
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
      before += terms_[term].value();
      after += terms_[term].ValueWith(member, ratio);
    }
    if (!(after < before * (1 - 1e-9))) return false;
    for (const auto& [term, member] : places_[j]) terms_[term].Multiply(member, ratio);
    scales_[j] = moved;
    return true;
  }

  std::vector<float> scales_;
  const std::vector<float> start_;
  std::vector<NoiseTerm> terms_;
  std::vector<std::vector<std::pair<size_t, int64_t>>> places_;  // of each scale: term, member
};

}  // namespace

std::vector<float> Balance(const FoldProblem& problem, const std::vector<float>& start) {
  Check(HasExpectedError(problem.scheme), "Balance: integer schemes alone");
  Check(std::ssize(start) == problem.scales, "Balance: one scale for each element");
  return RoundScales(Normalized(Descent(problem, start).Run()));
}

}  // namespace quantmill
