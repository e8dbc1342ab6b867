#include "quant/runtime/benchmark.h"

#include <chrono>
#include <memory>
#include <random>
#include <span>
#include <utility>

#include "kernels/core/error.h"
#include "quant/runtime/sampler.h"

namespace quantmill {
namespace {

using Clock = std::chrono::steady_clock;

class Benchmark {
 public:
  Benchmark(Backend& backend, Exec& exec, DecoderModel& decoder, const BenchmarkShape& shape)
      : backend_(backend),
        exec_(exec),
        decoder_(decoder),
        cache_(decoder.NewCache(shape.batch *
                                (shape.prompt_tokens + shape.decode_tokens + kKvBlockTokens))) {}

  // The prompt of one more sequence; its next token is chosen.
  double Prefill(std::span<const int32_t> prompt) {
    const auto start = Clock::now();
    KvSequence& sequence = sequences_.emplace_back(cache_);
    const auto tokens = std::ssize(prompt);
    const SequenceStep step = sequence.Append(tokens, 0);
    next_.push_back(Forward({&step, 1}, prompt, tokens - 1, 1).front());
    ids_.push_back({next_.back()});
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  // One token of every sequence.
  double Step() {
    const auto start = Clock::now();
    std::vector<SequenceStep> steps;
    steps.reserve(sequences_.size());
    for (KvSequence& sequence : sequences_) steps.push_back(sequence.Append(1, std::ssize(steps)));
    next_ = Forward(steps, next_, 0, std::ssize(steps));
    for (size_t i = 0; i < next_.size(); ++i) ids_[i].push_back(next_[i]);
    return std::chrono::duration<double>(Clock::now() - start).count();
  }

  const std::vector<std::vector<int32_t>>& ids() const { return ids_; }

 private:
  // The likeliest token behind each of `count` rows from `first` on.
  std::vector<int32_t> Forward(std::span<const SequenceStep> steps, std::span<const int32_t> ids,
                               int64_t first, int64_t count) {
    const std::unique_ptr<BatchPlan> plan = backend_.PlanBatch(exec_, steps);
    const int64_t vocab = decoder_.spec().vocab;
    Workspace::Scope scope(exec_.workspace);
    const Matrix hidden =
        scope.Take(ActivationType(decoder_.compute()), plan->tokens(), decoder_.spec().hidden);
    decoder_.Forward(*plan, ids, cache_, hidden);
    const Matrix rows = scope.Take(DType::kF32, count, vocab);
    decoder_.Logits(hidden.Rows(first, count), rows);
    logits_.resize(static_cast<size_t>(count * vocab));
    backend_.Download(exec_, rows, MutableViewOf(logits_.data(), count, vocab));
    std::vector<int32_t> next;
    for (int64_t i = 0; i < count; ++i) {
      next.push_back(greedy_.Next(
          std::span(logits_).subspan(static_cast<size_t>(i * vocab), static_cast<size_t>(vocab))));
    }
    return next;
  }

  Backend& backend_;
  Exec& exec_;
  DecoderModel& decoder_;
  KvCache cache_;
  std::vector<KvSequence> sequences_;
  std::vector<int32_t> next_;              // of each sequence
  std::vector<std::vector<int32_t>> ids_;  // all that was chosen, of each sequence
  std::vector<float> logits_;
  Sampler greedy_{SamplingOptions{}};
};

}  // namespace

BenchmarkRun RunBenchmark(Backend& backend, Exec& exec, DecoderModel& decoder,
                          const BenchmarkShape& shape, const std::function<void()>& before_step) {
  Check(shape.batch >= 1 && shape.prompt_tokens >= 1 && shape.decode_tokens >= 2,
        "RunBenchmark: an empty shape");
  Benchmark benchmark(backend, exec, decoder, shape);
  std::mt19937 random(1);
  const auto vocab = static_cast<uint32_t>(decoder.spec().vocab);
  BenchmarkRun run;
  for (int64_t i = 0; i < shape.batch; ++i) {
    std::vector<int32_t> prompt;
    for (int64_t t = 0; t < shape.prompt_tokens; ++t) {
      prompt.push_back(static_cast<int32_t>(random() % vocab));
    }
    before_step();
    run.first_token.push_back(benchmark.Prefill(prompt));
    run.prompts.push_back(std::move(prompt));
  }
  for (int64_t t = 1; t < shape.decode_tokens; ++t) {
    before_step();
    run.steps.push_back(benchmark.Step());
  }
  run.ids = benchmark.ids();
  return run;
}

}  // namespace quantmill
