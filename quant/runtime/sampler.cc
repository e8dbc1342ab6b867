#include "quant/runtime/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/core/error.h"

namespace quantmill {

Sampler::Sampler(const SamplingOptions& options) : options_(options), random_(options.seed) {
  if (!(options.temperature >= 0) || !std::isfinite(options.temperature)) {
    throw Error(ErrorCode::kUsage, "--temperature", "must be 0 or more");
  }
  if (options.top_k < 0) throw Error(ErrorCode::kUsage, "--top-k", "must be 0 or more");
  if (!(options.top_p > 0 && options.top_p <= 1)) {
    throw Error(ErrorCode::kUsage, "--top-p", "must be above 0 and at most 1");
  }
}

int32_t Sampler::Next(std::span<const float> logits) {
  Check(!logits.empty(), "Sampler: no logits");
  const auto top = std::max_element(logits.begin(), logits.end());
  const bool has_nan =
      std::any_of(logits.begin(), logits.end(), [](float x) { return std::isnan(x); });
  if (has_nan || !std::isfinite(*top)) {
    throw Error(ErrorCode::kBadInput, "logits", "are NaN or infinite: the model is damaged");
  }
  if (options_.temperature == 0) return static_cast<int32_t>(top - logits.begin());

  order_.resize(logits.size());
  std::iota(order_.begin(), order_.end(), 0);
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < order_.size()) {
    std::partial_sort(order_.begin(), order_.begin() + options_.top_k, order_.end(), likelier);
    order_.resize(static_cast<size_t>(options_.top_k));
  } else {
    std::sort(order_.begin(), order_.end(), likelier);
  }
  weights_.clear();
  for (const int32_t id : order_) {
    const double logit = logits[static_cast<size_t>(id)];
    weights_.push_back(std::exp((logit - static_cast<double>(*top)) / options_.temperature));
  }
  double total = std::accumulate(weights_.begin(), weights_.end(), 0.0);
  if (options_.top_p < 1) {
    double kept = 0;
    size_t count = 0;
    while (count < weights_.size() && kept < options_.top_p * total) kept += weights_[count++];
    weights_.resize(count);
    total = kept;
  }
  // 53 random bits in [0, 1).
  double draw = static_cast<double>(random_() >> 11) * 0x1p-53 * total;
  for (size_t i = 0; i < weights_.size(); ++i) {
    draw -= weights_[i];
    if (draw < 0) return order_[i];
  }
  return order_[weights_.size() - 1];
}

}  // namespace quantmill
