// How fast a model serves: prompts, then tokens one after another, for several sequences at once.
#ifndef QUANTMILL_QUANT_RUNTIME_BENCHMARK_H_
#define QUANTMILL_QUANT_RUNTIME_BENCHMARK_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "quant/runtime/decoder_model.h"

namespace quantmill {

struct BenchmarkShape {
  int64_t batch = 1;            // sequences that decode together
  int64_t prompt_tokens = 512;  // of each
  int64_t decode_tokens = 64;   // of each, the first of which comes from the prompt
};

// Seconds of wall time, sampling (arg max) and copies of the logits to the host included.
struct BenchmarkRun {
  std::vector<double> first_token;  // of each sequence, its prompt run alone
  std::vector<double> steps;        // one token of all sequences each: decode_tokens - 1 of them
  std::vector<std::vector<int32_t>> prompts;  // of each sequence
  std::vector<std::vector<int32_t>> ids;      // and what followed: decode_tokens of them
};

// Runs it once on prompts of random ids, the same for every model with the same vocabulary: speed
// does not depend on what is said. `before_step` is called before each forward (to stop by
// throwing). Throws Error(kEnvironment) when the cache does not fit.
// REQUIRES: batch, prompt_tokens >= 1, decode_tokens >= 2.
BenchmarkRun RunBenchmark(Backend& backend, Exec& exec, DecoderModel& decoder,
                          const BenchmarkShape& shape, const std::function<void()>& before_step);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_BENCHMARK_H_
