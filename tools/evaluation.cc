#include "tools/evaluation.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <optional>
#include <utility>

#include "formats/sha256.h"
#include "kernels/core/error.h"
#include "quant/calib/token_stream.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/quantize.h"
#include "quant/report/units.h"
#include "quant/runtime/evaluate.h"
#include "tools/progress.h"
#include "tools/signals.h"
#include "tools/text_tokens.h"
#include "tools/weights.h"

namespace quantmill {
namespace {

// The models to run, each opened once, and which of them is the reference.
struct Contest {
  std::deque<ModelSource> sources;  // as named; then the reference, if it is not among them
  std::optional<size_t> reference;
};

bool SameFolder(const ModelSource& a, const ModelSource& b) {
  std::error_code error;
  return std::filesystem::equivalent(a.checkpoint().folder(), b.checkpoint().folder(), error);
}

// The reference keeps its keys and values in F32. With others, or computed in another type, it is
// another model, even if it is one of those named.
Contest OpenModels(const EvaluationFlags& flags) {
  Contest contest;
  for (const std::string& model : flags.models) contest.sources.push_back(ModelSource::Open(model));
  if (flags.reference.empty()) return contest;
  ModelSource reference = ModelSource::Open(flags.reference);
  const bool same_compute =
      flags.reference_compute.empty() || flags.reference_compute == flags.compute;
  for (size_t i = 0; i < contest.sources.size() && same_compute; ++i) {
    const bool same_cache = KvPrecisionNamed(flags.kv_cache, contest.sources[i]) == KvPrecision{};
    if (same_cache && SameFolder(contest.sources[i], reference)) contest.reference = i;
  }
  if (!contest.reference) {
    contest.reference = contest.sources.size();
    contest.sources.push_back(std::move(reference));
  }
  return contest;
}

EvaluationOptions OptionsOf(const EvaluationFlags& flags, const Contest& contest,
                            const TextTokens& tokens) {
  EvaluationOptions options;
  const bool llamacpp = flags.protocol == "llamacpp";
  options.protocol = llamacpp ? Protocol::kLlamaCpp : Protocol::kWindows;
  options.window = flags.window > 0 ? flags.window : llamacpp ? 512 : 2048;
  options.max_windows = flags.max_windows;
  options.bos = tokens.bos;
  for (const ModelSource& source : contest.sources) {
    const int64_t positions = source.spec().max_positions;
    if (positions == 0 || options.window <= positions) continue;
    throw Error(ErrorCode::kUsage, "--window",
                std::to_string(options.window) + " tokens are more than the " +
                    std::to_string(positions) + " positions of " + source.path() +
                    "; use --window " + std::to_string(positions));
  }
  return options;
}

// The caches of the models, each kind once: "f32", "fp8 with the artifact's scales, f32".
std::string DescribeCaches(const EvaluationFlags& flags, const Contest& contest) {
  std::vector<std::string> kinds;
  for (size_t i = 0; i < flags.models.size(); ++i) {
    const ModelSource& source = contest.sources[i];
    const std::string kind = Describe(KvPrecisionNamed(flags.kv_cache, source), source);
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
  }
  std::string text;
  for (const std::string& kind : kinds) text += (text.empty() ? "" : ", ") + kind;
  if (contest.reference && text != "f32") text += ", reference f32";
  return text;
}

ProtocolDescription Describe(const EvaluationFlags& flags, const EvaluationOptions& options,
                             const TextTokens& tokens, int64_t windows, Compute compute) {
  ProtocolDescription protocol;
  protocol.name = flags.protocol;
  protocol.window = options.window;
  protocol.windows = windows;
  protocol.bos = options.protocol == Protocol::kLlamaCpp
                     ? options.bos.has_value()
                     : tokens.bos && !tokens.ids.empty() && tokens.ids[0] == *tokens.bos;
  const std::string& file = flags.text.empty() ? flags.tokens_file : flags.text;
  protocol.text = std::filesystem::path(file).filename().string();
  protocol.tokens_sha256 = HashTokens(tokens.ids);
  protocol.text_tokens = static_cast<int64_t>(tokens.ids.size());
  protocol.compute = NameOf(compute);
  if (!flags.reference_compute.empty() && flags.reference_compute != flags.compute) {
    protocol.compute += ", reference in " + flags.reference_compute;
  }
  return protocol;
}

EvaluatedModel ResultOf(const ModelSource& source, const ModelScores& scores) {
  EvaluatedModel model;
  model.path = source.path();
  model.weights = DescribeWeights(source);
  model.perplexity = scores.perplexity.perplexity;
  model.perplexity_ci95 = {scores.perplexity.low, scores.perplexity.high};
  model.tokens = scores.perplexity.tokens;
  model.tokens_per_second = scores.tokens_per_second;
  model.file_bytes = WeightFileBytes(source);
  if (!scores.divergence) return model;
  const DivergenceResult& d = *scores.divergence;
  model.divergence = {d.kl_mean,        d.kl_ci95, d.kl_p99,    d.kl_max,
                      d.top1_agreement, d.flips,   d.delta_nll, d.delta_nll_ci95};
  return model;
}

TextTokens ReadTokens(const EvaluationFlags& flags, const Contest& contest) {
  TextTokens tokens = flags.text.empty() ? ReadTokensFile(flags.tokens_file, contest.sources)
                                         : TokenizeText(flags.text, contest.sources);
  const std::string hash = HashTokens(tokens.ids);
  if (flags.tokens_sha256.empty() || hash == flags.tokens_sha256) return tokens;
  throw Error(ErrorCode::kBadInput, flags.text.empty() ? flags.tokens_file : flags.text,
              "is another text than the limits are for: its tokens have SHA-256 " + hash +
                  ", not " + flags.tokens_sha256);
}

std::vector<ModelScores> Score(const EvaluationFlags& flags, const Contest& contest,
                               const std::vector<EvaluationWindow>& windows, Session& session,
                               const Console& console) {
  std::deque<DecoderModel> decoders;
  std::vector<DecoderModel*> models;
  ProgressLine line(console.shows_progress());
  for (const ModelSource& source : contest.sources) {
    ThrowIfInterrupted();
    line.Update({"loading", std::ssize(models), std::ssize(contest.sources), 0, source.path()});
    const bool is_reference = contest.reference && models.size() == *contest.reference;
    const bool has_own = is_reference && !flags.reference_compute.empty();
    const Compute compute = session.ComputeNamed(has_own ? flags.reference_compute : flags.compute);
    const KvPrecision kv = is_reference ? KvPrecision{} : KvPrecisionNamed(flags.kv_cache, source);
    models.push_back(&decoders.emplace_back(session.backend(), session.exec(), source,
                                            ForManyTokens(compute, session.backend().Info()), kv));
  }
  DecoderModel* reference = contest.reference ? models[*contest.reference] : nullptr;
  const auto start = std::chrono::steady_clock::now();
  const auto show = [&](int64_t done, int64_t total, double perplexity) {
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    const auto tokens = static_cast<double>(done) * static_cast<double>(windows[0].ids.size());
    line.Update({"scoring", done, total, tokens / passed.count(),
                 "perplexity " + FormatFixed(perplexity, 3)});
    ThrowIfInterrupted();
  };
  return Evaluate(session.backend(), session.exec(), models, reference, windows, show);
}

}  // namespace

Evaluation EvaluateModels(const EvaluationFlags& flags, Session& session, const Console& console) {
  const auto start = std::chrono::steady_clock::now();
  const Compute compute = session.ComputeNamed(flags.compute);
  const Contest contest = OpenModels(flags);
  const TextTokens tokens = ReadTokens(flags, contest);
  const EvaluationOptions options = OptionsOf(flags, contest, tokens);
  const std::vector<EvaluationWindow> windows = CutWindows(tokens.ids, options);
  std::vector<ModelScores> scores = Score(flags, contest, windows, session, console);

  Evaluation evaluation;
  EvalReport& report = evaluation.report;
  report.protocol = Describe(flags, options, tokens, std::ssize(windows), compute);
  report.protocol.kv_cache = DescribeCaches(flags, contest);
  report.backend = session.Describe();
  for (size_t i = 0; i < flags.models.size(); ++i) {
    report.models.push_back(ResultOf(contest.sources[i], scores[i]));
    evaluation.log_probs.push_back(std::move(scores[i].log_probs));
  }
  if (contest.reference) {
    report.reference = contest.sources[*contest.reference].path();
    if (*contest.reference == flags.models.size()) {
      report.reference_scores = ResultOf(contest.sources.back(), scores.back());
    }
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.peak_rss_bytes = PeakResidentBytes();
  return evaluation;
}

}  // namespace quantmill
