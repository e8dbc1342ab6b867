// quantmill eval: perplexity by a stated protocol, and divergence from a reference.
#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "formats/file.h"
#include "formats/sha256.h"
#include "formats/single_file_output.h"
#include "quant/calib/token_stream.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/quantize.h"
#include "quant/report/units.h"
#include "quant/runtime/evaluate.h"
#include "tools/command.h"
#include "tools/flag_set.h"
#include "tools/progress.h"
#include "tools/session.h"
#include "tools/signals.h"
#include "tools/text_tokens.h"
#include "tools/weights.h"

namespace quantmill {
namespace {

struct EvalFlags {
  std::vector<std::string> models;
  std::string reference;
  std::string text;
  std::string tokens_file;
  std::string protocol = "windows";
  int64_t window = 0;  // 0: the protocol's
  int64_t max_windows = 0;
  std::string compute = "f32";
  std::string reference_compute;  // empty: as compute
  std::string kv_cache = "auto";
  std::string log_probs;
};

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
Contest OpenModels(const EvalFlags& flags) {
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

EvaluationOptions OptionsOf(const EvalFlags& flags, const Contest& contest,
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
std::string DescribeCaches(const EvalFlags& flags, const Contest& contest) {
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

ProtocolDescription Describe(const EvalFlags& flags, const EvaluationOptions& options,
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

// The file of --log-probs: replaces an older one of its kind alone, and is tried before the work.
class LogProbsFile {
 public:
  explicit LogProbsFile(const std::string& path)
      : output_(path, true, "[["), file_(OutputFile::Create(output_.path())) {}

  void Write(const std::vector<ModelScores>& scores, size_t models) {
    nlohmann::json arrays = nlohmann::json::array();
    for (size_t i = 0; i < models; ++i) arrays.push_back(scores[i].log_probs);
    file_.WriteAt(0, BytesOf(arrays.dump() + "\n"));
    file_.Finish();
    output_.Commit();
  }

 private:
  SingleFileOutput output_;
  OutputFile file_;
};

class EvalCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override;
  int Run(Console& console) override;

 private:
  TextTokens ReadTokens(const Contest& contest) const;
  std::vector<ModelScores> Score(Session& session, const Contest& contest, Compute compute,
                                 const std::vector<EvaluationWindow>& windows,
                                 Console& console) const;

  EvalFlags flags_;
};

FlagSet EvalCommand::Register(CLI::App& app) {
  FlagSet command(app, "eval", "perplexity, and divergence from a reference");
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return command.Add(flag, value, help);
  };
  add("MODEL", flags_.models, "checkpoints or artifacts").Required().ValueName("");
  add("--reference", flags_.reference, "measure divergence from this model").ValueName("MODEL");
  add("--text", flags_.text, "plain text, .json or .jsonl").ValueName("FILE");
  add("--tokens-file", flags_.tokens_file, "instead of text: a JSON array of token ids")
      .ValueName("FILE");
  add("--protocol", flags_.protocol, "default: windows").OneOf({"windows", "llamacpp"});
  add("--window", flags_.window, "tokens; default: 2048, llamacpp 512").IntegerIn(2, 10'000'000);
  add("--max-windows", flags_.max_windows, "default: all").IntegerIn(1, 1'000'000'000);
  add("--compute", flags_.compute, "default: f32").OneOf({"f32", "bf16"});
  add("--reference-compute", flags_.reference_compute, "default: as --compute")
      .OneOf({"f32", "bf16"});
  add("--kv-cache", flags_.kv_cache, "keys and values; default: auto, as the\nmodel says")
      .OneOf(KvPrecisionNames());
  add("--log-probs", flags_.log_probs,
      "write the log-probability of every scored\ntoken: a JSON array for each model")
      .ValueName("FILE");
  AddCommonFlags(command);
  command.Footer(
      "Protocols: 'windows' scores every prediction of windows without overlap (as\n"
      "GPTQ and AWQ do), 'llamacpp' the second half of each, as llama.cpp does.\n\n"
      "Example: what 4 bits cost, with error bars\n"
      "  quantmill eval sample-w4 --reference calib_data/sample_model \\\n"
      "      --text calib_data/evaluation.txt --window 512");
  return command;
}

TextTokens EvalCommand::ReadTokens(const Contest& contest) const {
  if (!flags_.tokens_file.empty()) return ReadTokensFile(flags_.tokens_file, contest.sources);
  return TokenizeText(flags_.text, contest.sources);
}

std::vector<ModelScores> EvalCommand::Score(Session& session, const Contest& contest,
                                            Compute compute,
                                            const std::vector<EvaluationWindow>& windows,
                                            Console& console) const {
  std::deque<DecoderModel> decoders;
  std::vector<DecoderModel*> models;
  ProgressLine line(console.shows_progress());
  for (const ModelSource& source : contest.sources) {
    ThrowIfInterrupted();
    line.Update({"loading", std::ssize(models), std::ssize(contest.sources), 0, source.path()});
    const bool is_reference = contest.reference && models.size() == *contest.reference;
    const Compute own = is_reference && !flags_.reference_compute.empty()
                            ? session.ComputeNamed(flags_.reference_compute)
                            : compute;
    const KvPrecision kv = is_reference ? KvPrecision{} : KvPrecisionNamed(flags_.kv_cache, source);
    models.push_back(&decoders.emplace_back(session.backend(), session.exec(), source,
                                            ForManyTokens(own, session.backend().Info()), kv));
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

int EvalCommand::Run(Console& console) {
  if (flags_.text.empty() == flags_.tokens_file.empty()) {
    throw Error(ErrorCode::kUsage, "eval", "needs either --text FILE or --tokens-file FILE");
  }
  const auto start = std::chrono::steady_clock::now();
  Session session(common());
  const Compute compute = session.ComputeNamed(flags_.compute);
  const Contest contest = OpenModels(flags_);
  const TextTokens tokens = ReadTokens(contest);
  const EvaluationOptions options = OptionsOf(flags_, contest, tokens);
  const std::vector<EvaluationWindow> windows = CutWindows(tokens.ids, options);
  std::optional<LogProbsFile> log_probs;
  if (!flags_.log_probs.empty()) log_probs.emplace(flags_.log_probs);
  const std::vector<ModelScores> scores = Score(session, contest, compute, windows, console);
  if (log_probs) log_probs->Write(scores, flags_.models.size());

  EvalReport report;
  report.protocol =
      Describe(flags_, options, tokens, static_cast<int64_t>(windows.size()), compute);
  report.protocol.kv_cache = DescribeCaches(flags_, contest);
  report.backend = session.Describe();
  for (size_t i = 0; i < flags_.models.size(); ++i) {
    report.models.push_back(ResultOf(contest.sources[i], scores[i]));
  }
  if (contest.reference) {
    report.reference = contest.sources[*contest.reference].path();
    if (*contest.reference == flags_.models.size()) {
      report.reference_scores = ResultOf(contest.sources.back(), scores.back());
    }
  }
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  report.peak_rss_bytes = PeakResidentBytes();
  console.WriteReport(report);
  return 0;
}

}  // namespace

std::unique_ptr<Command> MakeEvalCommand() { return std::make_unique<EvalCommand>(); }

}  // namespace quantmill
