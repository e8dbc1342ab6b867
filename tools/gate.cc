// quantmill gate: whether an artifact may pass, for pipelines.
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/report/markup.h"
#include "quant/verify/gate_limits.h"
#include "quant/verify/verify_artifact.h"
#include "tools/benchmarking.h"
#include "tools/command.h"
#include "tools/evaluation.h"
#include "tools/flag_set.h"
#include "tools/progress.h"
#include "tools/session.h"
#include "tools/signals.h"
#include "tools/text_output.h"
#include "tools/weights.h"

namespace quantmill {
namespace {

class GateCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override {
    FlagSet command(app, "gate", "pass or fail, by limits from a file");
    command.Add("ARTIFACT", artifact_, "folder that quantize wrote, or a GGUF file")
        .Required()
        .ValueName("");
    command.Add("--reference", reference_, "the checkpoint it was made from")
        .Required()
        .ValueName("MODEL");
    command.Add("--limits", limits_, "YAML: 'kl: 0.05' and so on").Required().ValueName("FILE");
    command.Add("--text", text_, "plain text, .json or .jsonl to evaluate on").ValueName("FILE");
    command.Add("--tokens-file", tokens_file_, "instead of text: a JSON array of token ids")
        .ValueName("FILE");
    command.Add("--junit", junit_, "also write JUnit XML, for CI servers").ValueName("FILE");
    command.Add("--html", html_, "also write a page, for people").ValueName("FILE");
    AddCommonFlags(command);
    command.Footer(
        "Checks every byte as verify does, then measures what the limits are about\n"
        "(docs/gate.md). Exit code 1 if the file is damaged or a limit is broken.\n\n"
        "Example:\n"
        "  echo 'kl: 0.05' > limits.yaml\n"
        "  quantmill gate sample-w4 --reference calib_data/sample_model \\\n"
        "      --limits limits.yaml --text calib_data/evaluation.txt --html gate.html");
    return command;
  }

  int Run(Console& console) override {
    const auto start = std::chrono::steady_clock::now();
    const GateLimits limits = LoadGateLimits(limits_);
    RequireText(limits);
    std::optional<TextOutput> junit;
    if (!junit_.empty()) junit.emplace(junit_, "<?xml");
    std::optional<TextOutput> html;
    if (!html_.empty()) html.emplace(html_, "<!DOCTYPE html>");

    GateReport report;
    report.artifact = artifact_;
    report.reference = reference_;
    report.limits = limits_;
    report.strict = limits.strict;
    report.verified = Verify(console);
    if (report.verified.passed()) Measure(limits, console, report);
    report.checks = CheckLimits(limits, Facts(report));
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    if (junit) junit->Write(JUnitXml(report));
    if (html) html->Write(HtmlPage(report));
    console.WriteReport(report);
    return report.passed() ? 0 : static_cast<int>(ErrorCode::kVerification);
  }

 private:
  void RequireText(const GateLimits& limits) const {
    if (!text_.empty() && !tokens_file_.empty()) {
      throw Error(ErrorCode::kUsage, "gate", "takes --text or --tokens-file, not both");
    }
    if (limits.need_evaluation() && text_.empty() && tokens_file_.empty()) {
      throw Error(ErrorCode::kUsage, "gate",
                  "needs --text FILE or --tokens-file FILE: " + limits_ +
                      " limits what only an evaluation tells");
    }
  }

  VerifyReport Verify(const Console& console) const {
    const ModelSource reference = ModelSource::Open(reference_, {.codes = false});
    ThreadPool pool(common().threads > 0 ? common().threads : AvailableCpus());
    ProgressLine line(console.shows_progress());
    VerifyOptions options;
    options.progress = [&](int64_t done, int64_t total, const std::string& layer) {
      line.Update({"verifying", done, total, 0, layer});
      return Interrupted();
    };
    return VerifyArtifact(artifact_, &reference, pool, options);
  }

  // What the limits are about, and nothing else.
  void Measure(const GateLimits& limits, const Console& console, GateReport& report) const {
    if (!limits.need_evaluation() && !limits.need_speeds()) return;
    Session session(common());
    if (limits.need_evaluation()) report.evaluated = Evaluate(limits, session, console);
    if (limits.need_speeds()) report.benched = Benchmark(limits, session, console);
  }

  EvalReport Evaluate(const GateLimits& limits, Session& session, const Console& console) const {
    EvaluationFlags flags;
    flags.models = {artifact_};
    flags.reference = reference_;
    flags.text = text_;
    flags.tokens_file = tokens_file_;
    if (!limits.protocol.empty()) flags.protocol = limits.protocol;
    flags.window = limits.window;
    flags.max_windows = limits.max_windows;
    if (!limits.compute.empty()) flags.compute = limits.compute;
    flags.tokens_sha256 = limits.tokens_sha256;
    return EvaluateModels(flags, session, console).report;
  }

  BenchReport Benchmark(const GateLimits& limits, Session& session, const Console& console) const {
    BenchmarkFlags flags;
    flags.models = {artifact_};
    flags.reference = reference_;
    flags.batches = {limits.batch};
    if (limits.prompt_tokens > 0) flags.prompt_tokens = limits.prompt_tokens;
    if (limits.decode_tokens > 0) flags.decode_tokens = limits.decode_tokens;
    if (!limits.compute.empty()) flags.compute = limits.compute;
    return BenchmarkModels(flags, session, console);
  }

  GateFacts Facts(const GateReport& report) const {
    GateFacts facts;
    facts.evaluated = report.evaluated ? &*report.evaluated : nullptr;
    facts.benched = report.benched ? &*report.benched : nullptr;
    facts.why_not_run = "was not measured: the file is damaged";
    facts.weight_bytes = WeightFileBytes(ModelSource::Open(artifact_));
    facts.fallbacks = report.verified.fallbacks;
    return facts;
  }

  std::string artifact_;
  std::string reference_;
  std::string limits_;
  std::string text_;
  std::string tokens_file_;
  std::string junit_;
  std::string html_;
};

}  // namespace

std::unique_ptr<Command> MakeGateCommand() { return std::make_unique<GateCommand>(); }

}  // namespace quantmill
