#include "quant/runtime/routing.h"

#include <algorithm>
#include <cmath>

namespace quantmill {
namespace {

void Softmax(const float* logits, std::vector<float>& probabilities) {
  const size_t count = probabilities.size();
  const float largest = *std::max_element(logits, logits + count);
  std::vector<double> terms(count);
  double sum = 0;
  for (size_t e = 0; e < count; ++e) {
    terms[e] = std::exp(static_cast<double>(logits[e]) - static_cast<double>(largest));
    sum += terms[e];
  }
  for (size_t e = 0; e < count; ++e) probabilities[e] = static_cast<float>(terms[e] / sum);
}

// The k most probable, best first.
std::vector<size_t> Best(const std::vector<float>& probabilities, int64_t k) {
  std::vector<size_t> best;
  for (int64_t i = 0; i < k; ++i) {
    size_t found = probabilities.size();
    for (size_t e = 0; e < probabilities.size(); ++e) {
      if (std::ranges::find(best, e) != best.end()) continue;
      if (found == probabilities.size() || probabilities[e] > probabilities[found]) found = e;
    }
    best.push_back(found);
  }
  return best;
}

}  // namespace

std::vector<ExpertTokens> RouteTokens(ConstMatrix logits, int64_t top_k, bool renormalize) {
  Check(top_k > 0 && top_k <= logits.cols, "RouteTokens: more experts are chosen than there are");
  std::vector<ExpertTokens> experts(static_cast<size_t>(logits.cols));
  std::vector<float> probabilities(experts.size());
  for (int64_t token = 0; token < logits.rows; ++token) {
    Softmax(logits.Row<float>(token), probabilities);
    const std::vector<size_t> chosen = Best(probabilities, top_k);
    float sum = 0;
    for (const size_t e : chosen) sum += probabilities[e];
    for (const size_t e : chosen) {
      experts[e].rows.push_back(static_cast<int32_t>(token));
      experts[e].factors.push_back(renormalize ? probabilities[e] / sum : probabilities[e]);
    }
  }
  return experts;
}

}  // namespace quantmill
