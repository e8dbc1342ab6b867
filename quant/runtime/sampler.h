// Chooses the next token from a row of logits.
#ifndef QUANTMILL_QUANT_RUNTIME_SAMPLER_H_
#define QUANTMILL_QUANT_RUNTIME_SAMPLER_H_

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace quantmill {

struct SamplingOptions {
  double temperature = 0;  // 0: greedy (arg max, the lowest id on ties)
  int64_t top_k = 0;       // keep the k most likely; 0: all
  double top_p = 1;        // then keep the smallest set whose probability reaches p
  uint64_t seed = 0;
};

// Deterministic for a seed on every platform (the generator's bits are used directly, not through a
// standard distribution). Error(kUsage) for options outside their range.
class Sampler {
 public:
  explicit Sampler(const SamplingOptions& options);
  // logits: [vocab] in host memory. A row without a finite maximum is Error(kBadInput).
  int32_t Next(std::span<const float> logits);

 private:
  SamplingOptions options_;
  std::mt19937_64 random_;
  std::vector<int32_t> order_;  // scratch: candidates, most likely first
  std::vector<double> weights_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_SAMPLER_H_
