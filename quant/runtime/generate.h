// Token-by-token generation on the paged cache.
#ifndef QUANTMILL_QUANT_RUNTIME_GENERATE_H_
#define QUANTMILL_QUANT_RUNTIME_GENERATE_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "quant/runtime/decoder_model.h"
#include "quant/runtime/sampler.h"

namespace quantmill {

struct GenerationOptions {
  int64_t max_tokens = 128;
  SamplingOptions sampling;
  std::vector<int32_t> stop_ids;  // generation ends at these; they are not reported
};

struct GenerationResult {
  std::vector<int32_t> ids;    // generated, without the stop token
  bool stopped = false;        // by a stop token (otherwise: max_tokens or the callback)
  double prefill_seconds = 0;  // prompt to first logits
  double decode_seconds = 0;   // the rest
  int64_t decoded_tokens = 0;  // forwards of one token
};

// `on_token` is called with each token as soon as it is chosen; it returns false to end.
// prompt: at least one token (Error(kUsage) otherwise).
GenerationResult Generate(Backend& backend, Exec& exec, DecoderModel& decoder,
                          std::span<const int32_t> prompt, const GenerationOptions& options,
                          const std::function<bool(int32_t)>& on_token);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_GENERATE_H_
