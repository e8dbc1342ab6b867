// Statistics of token scores: perplexity with its error, divergence from a reference, paired on the
// same tokens.
#ifndef QUANTMILL_QUANT_RUNTIME_DIVERGENCE_H_
#define QUANTMILL_QUANT_RUNTIME_DIVERGENCE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace quantmill {

// A mean over windows with its 95 % interval. Tokens of one window are correlated, windows are
// taken as independent: the interval is mean +- t(windows - 1) * standard error over window means;
// with one window the half width is 0 and `windows` tells.
struct Interval {
  double mean = 0;
  double half_width = 0;
  int64_t windows = 0;
};
// Weighted by the windows' token counts only through their own means (all windows of a protocol
// have the same length).
Interval IntervalOverWindows(std::span<const double> window_means);

// Perplexity of one model on one text.
struct PerplexityResult {
  double perplexity = 0;  // exp(mean negative log-likelihood over all scored tokens)
  double low = 0;         // its 95 % interval
  double high = 0;
  int64_t tokens = 0;  // scored
};

// Divergence of a model from a reference on the same tokens.
struct DivergenceResult {
  double kl_mean = 0;  // nats per token, KL(reference || model)
  double kl_ci95 = 0;  // half width over windows
  double kl_p99 = 0;   // 99th percentile over tokens (nearest rank)
  double kl_max = 0;
  double top1_agreement = 0;  // share of tokens with the same arg max
  double flips = 0;      // share of tokens whose arg max was right in one and wrong in the other
  double delta_nll = 0;  // mean of log p_ref(target) - log p(target), paired
  double delta_nll_ci95 = 0;  // half width over windows
};

// Collects scores window by window.
class ScoreAccumulator {
 public:
  void AddWindow(std::span<const TokenScore> scores);
  PerplexityResult Result() const;

 private:
  std::vector<double> window_means_;  // of the negative log-likelihood
  double sum_ = 0;
  int64_t tokens_ = 0;
};

class DivergenceAccumulator {
 public:
  void AddWindow(std::span<const TokenComparison> scores, std::span<const int32_t> targets);
  DivergenceResult Result() const;

 private:
  std::vector<double> window_kl_;
  std::vector<double> window_delta_;
  std::vector<float> kl_;  // of each token, for the percentile
  double kl_sum_ = 0;
  double delta_sum_ = 0;
  int64_t same_top1_ = 0;
  int64_t flips_ = 0;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_DIVERGENCE_H_
