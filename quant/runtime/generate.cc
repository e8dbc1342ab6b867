#include "quant/runtime/generate.h"

#include <algorithm>
#include <chrono>

namespace quantmill {
namespace {

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Runs `ids` as the next tokens of `sequence` and fetches the logits of the last one.
void NextLogits(Backend& backend, Exec& exec, DecoderModel& decoder, std::span<const int32_t> ids,
                KvCache& cache, KvSequence& sequence, std::vector<float>& logits) {
  const auto tokens = static_cast<int64_t>(ids.size());
  const SequenceStep step = sequence.Append(tokens, 0);
  const std::unique_ptr<BatchPlan> plan = backend.PlanBatch(exec, {&step, 1});
  Workspace::Scope scope(exec.workspace);
  const Matrix hidden =
      scope.Take(ActivationType(decoder.compute()), tokens, decoder.spec().hidden);
  decoder.Forward(*plan, ids, cache, hidden);
  const Matrix row = scope.Take(DType::kF32, 1, decoder.spec().vocab);
  decoder.Logits(hidden.Rows(tokens - 1, 1), row);
  logits.resize(static_cast<size_t>(decoder.spec().vocab));
  backend.Download(exec, row, MutableViewOf(logits.data(), 1, decoder.spec().vocab));
}

// Whether a sequence of `positions` is the first that takes other frequencies (longrope).
bool OutgrowsRope(const DecoderSpec& spec, int64_t positions) {
  return !spec.rope.long_inv_freq.empty() && positions == spec.rope.original_positions + 1;
}

}  // namespace

GenerationResult Generate(Backend& backend, Exec& exec, DecoderModel& decoder,
                          std::span<const int32_t> prompt, const GenerationOptions& options,
                          const std::function<bool(int32_t)>& on_token) {
  if (prompt.empty()) throw Error(ErrorCode::kUsage, "--prompt", "has no tokens");
  const auto prompt_tokens = static_cast<int64_t>(prompt.size());
  KvCache cache = decoder.NewCache(prompt_tokens + options.max_tokens);
  KvSequence sequence(cache);
  Sampler sampler(options.sampling);
  GenerationResult result;
  std::vector<float> logits;

  auto start = Clock::now();
  NextLogits(backend, exec, decoder, prompt, cache, sequence, logits);
  result.prefill_seconds = SecondsSince(start);

  start = Clock::now();
  while (static_cast<int64_t>(result.ids.size()) < options.max_tokens) {
    const int32_t id = sampler.Next(logits);
    result.stopped =
        std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end();
    if (result.stopped) break;
    result.ids.push_back(id);
    if (!on_token(id) || static_cast<int64_t>(result.ids.size()) == options.max_tokens) break;
    if (OutgrowsRope(decoder.spec(), sequence.length() + 1)) {
      // The keys so far were rotated for a short sequence.
      std::vector<int32_t> all(prompt.begin(), prompt.end());
      all.insert(all.end(), result.ids.begin(), result.ids.end());
      sequence.Clear();
      NextLogits(backend, exec, decoder, all, cache, sequence, logits);
    } else {
      NextLogits(backend, exec, decoder, {&id, 1}, cache, sequence, logits);
    }
    ++result.decoded_tokens;
  }
  result.decode_seconds = SecondsSince(start);
  return result;
}

}  // namespace quantmill
