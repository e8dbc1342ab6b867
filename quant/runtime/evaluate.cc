#include "quant/runtime/evaluate.h"

#include <algorithm>
#include <chrono>
#include <string>

namespace quantmill {
namespace {

// Logits of one model held at a time. More rows at a time make the head's product faster.
constexpr int64_t kLogitBytes = int64_t{128} << 20;
int64_t LogitRows(int64_t vocab) {
  return std::max<int64_t>(16, kLogitBytes / (vocab * SizeOf(DType::kF32)));
}

using Clock = std::chrono::steady_clock;
double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Everything about one model during an evaluation.
struct Contestant {
  DecoderModel* decoder;
  KvCache cache;
  Tensor hidden;  // of the current window
  ScoreAccumulator scores;
  DivergenceAccumulator divergence;
  std::vector<float> log_probs;
  double seconds = 0;
};

Contestant Enter(Backend& backend, DecoderModel& decoder, int64_t longest) {
  return {&decoder,
          decoder.NewCache(longest),
          backend.Empty(ActivationType(decoder.compute()), longest, decoder.spec().hidden),
          {},
          {},
          {},
          0};
}

void RunWindow(Backend& backend, Exec& exec, const EvaluationWindow& window, Contestant& c) {
  const auto start = Clock::now();
  const auto tokens = static_cast<int64_t>(window.ids.size());
  KvSequence sequence(c.cache);
  const SequenceStep step = sequence.Append(tokens, 0);
  const std::unique_ptr<BatchPlan> plan = backend.PlanBatch(exec, {&step, 1});
  c.decoder->Forward(*plan, window.ids, c.cache, c.hidden.view().Rows(0, tokens));
  c.seconds += SecondsSince(start);
}

// Logits of `rows` rows from `row` on, in scratch memory of `scope`.
Matrix WindowLogits(Contestant& c, int64_t row, int64_t rows, Workspace::Scope& scope) {
  const Matrix logits = scope.Take(DType::kF32, rows, c.decoder->spec().vocab);
  c.decoder->Logits(c.hidden.view().Rows(row, rows), logits);
  return logits;
}

void CheckSameVocabulary(std::span<DecoderModel* const> models, const DecoderModel* reference) {
  for (const DecoderModel* model : models) {
    if (reference == nullptr || model->spec().vocab == reference->spec().vocab) continue;
    throw Error(ErrorCode::kBadInput, "--reference",
                "has a vocabulary of " + std::to_string(reference->spec().vocab) +
                    " tokens, the model " + std::to_string(model->spec().vocab) +
                    ": divergence needs the same one");
  }
}

class Evaluation {
 public:
  Evaluation(Backend& backend, Exec& exec, std::span<DecoderModel* const> models,
             DecoderModel* reference, int64_t longest)
      : backend_(backend), exec_(exec) {
    for (DecoderModel* model : models) contestants_.push_back(Enter(backend, *model, longest));
    for (size_t i = 0; i < models.size(); ++i) {
      if (models[i] == reference) reference_ = static_cast<int>(i);
    }
    models_ = models.size();
    if (reference != nullptr && reference_ < 0) {
      reference_ = static_cast<int>(contestants_.size());
      contestants_.push_back(Enter(backend, *reference, longest));
    }
  }

  void Score(const EvaluationWindow& window) {
    for (Contestant& c : contestants_) RunWindow(backend_, exec_, window, c);
    const auto end = static_cast<int64_t>(window.ids.size()) - 1;
    const int64_t begin = window.first_scored;
    const std::span<const int32_t> targets(window.ids.data() + begin + 1,
                                           static_cast<size_t>(end - begin));
    std::vector<std::vector<TokenComparison>> scores(models_,
                                                     std::vector<TokenComparison>(targets.size()));
    const int64_t rows = LogitRows(contestants_[0].decoder->spec().vocab);
    for (int64_t row = begin; row < end; row += rows) {
      ScoreRows(row, std::min(rows, end - row), begin, targets, scores);
    }
    for (size_t m = 0; m < models_; ++m) Collect(m, scores[m], targets);
  }

  std::vector<ModelScores> Results(int64_t tokens) const {
    std::vector<ModelScores> results;
    for (size_t m = 0; m < models_; ++m) {
      const Contestant& c = contestants_[m];
      ModelScores scores;
      scores.perplexity = c.scores.Result();
      if (reference_ >= 0) scores.divergence = c.divergence.Result();
      scores.log_probs = c.log_probs;
      scores.tokens_per_second = c.seconds > 0 ? static_cast<double>(tokens) / c.seconds : 0;
      results.push_back(scores);
    }
    return results;
  }
  double PerplexitySoFar() const { return contestants_[0].scores.Result().perplexity; }

 private:
  void ScoreRows(int64_t row, int64_t rows, int64_t begin, std::span<const int32_t> all_targets,
                 std::vector<std::vector<TokenComparison>>& scores) {
    const auto offset = static_cast<size_t>(row - begin);
    const std::span<const int32_t> targets = all_targets.subspan(offset, static_cast<size_t>(rows));
    Workspace::Scope scope(exec_.workspace);
    Matrix reference_logits;
    if (reference_ >= 0) {
      Contestant& r = contestants_[static_cast<size_t>(reference_)];
      const auto start = Clock::now();
      reference_logits = WindowLogits(r, row, rows, scope);
      r.seconds += SecondsSince(start);
    }
    for (size_t m = 0; m < models_; ++m) {
      Contestant& c = contestants_[m];
      const auto start = Clock::now();
      const std::span<TokenComparison> out(scores[m].data() + offset, targets.size());
      Workspace::Scope inner(exec_.workspace);
      if (reference_ < 0) {
        std::vector<TokenScore> plain(targets.size());
        backend_.ScoreLogits(exec_, WindowLogits(c, row, rows, inner), targets, plain);
        for (size_t i = 0; i < plain.size(); ++i) out[i].test = plain[i];
      } else {
        const Matrix logits = static_cast<int>(m) == reference_ ? reference_logits
                                                                : WindowLogits(c, row, rows, inner);
        backend_.CompareLogits(exec_, reference_logits, logits, targets, out);
      }
      c.seconds += SecondsSince(start);
    }
  }

  void Collect(size_t m, std::span<const TokenComparison> scores,
               std::span<const int32_t> targets) {
    std::vector<TokenScore> plain(scores.size());
    std::transform(scores.begin(), scores.end(), plain.begin(),
                   [](const TokenComparison& s) { return s.test; });
    contestants_[m].scores.AddWindow(plain);
    for (const TokenScore& s : plain) {
      contestants_[m].log_probs.push_back(static_cast<float>(s.log_prob));
    }
    if (reference_ >= 0) contestants_[m].divergence.AddWindow(scores, targets);
  }

  Backend& backend_;
  Exec& exec_;
  std::vector<Contestant> contestants_;  // the models, then the reference if it is not among them
  size_t models_ = 0;
  int reference_ = -1;
};

}  // namespace

std::vector<EvaluationWindow> CutWindows(std::span<const int32_t> tokens,
                                         const EvaluationOptions& options) {
  const int64_t window = options.window;
  if (window < 2) throw Error(ErrorCode::kUsage, "--window", "must be at least 2 tokens");
  int64_t count = static_cast<int64_t>(tokens.size()) / window;
  if (count == 0) {
    throw Error(ErrorCode::kBadInput, "evaluation text",
                "has " + std::to_string(tokens.size()) + " tokens, fewer than one window of " +
                    std::to_string(window) + "; lower --window or give more text");
  }
  if (options.max_windows > 0) count = std::min(count, options.max_windows);
  std::vector<EvaluationWindow> windows;
  for (int64_t i = 0; i < count; ++i) {
    const auto begin = tokens.begin() + i * window;
    EvaluationWindow cut{{begin, begin + window}, 0};
    if (options.protocol == Protocol::kLlamaCpp) {
      cut.first_scored = window / 2;
      if (options.bos) cut.ids[0] = *options.bos;
    }
    windows.push_back(std::move(cut));
  }
  return windows;
}

std::vector<ModelScores> Evaluate(Backend& backend, Exec& exec,
                                  std::span<DecoderModel* const> models, DecoderModel* reference,
                                  std::span<const EvaluationWindow> windows,
                                  const EvaluationProgress& progress) {
  Check(!models.empty(), "Evaluate: no models");
  CheckSameVocabulary(models, reference);
  size_t longest = 0;
  int64_t tokens = 0;
  for (const EvaluationWindow& window : windows) {
    longest = std::max(longest, window.ids.size());
    tokens += static_cast<int64_t>(window.ids.size());
  }
  Evaluation evaluation(backend, exec, models, reference, static_cast<int64_t>(longest));
  int64_t done = 0;
  for (const EvaluationWindow& window : windows) {
    evaluation.Score(window);
    if (progress) {
      progress(++done, static_cast<int64_t>(windows.size()), evaluation.PerplexitySoFar());
    }
  }
  return evaluation.Results(tokens);
}

}  // namespace quantmill
