#include "quant/pipeline/quantize.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "quant/calib/calibration_stream.h"
#include "quant/calib/token_stream.h"
#include "quant/pipeline/artifact_output.h"
#include "quant/pipeline/stopwatch.h"
#include "quant/runtime/block_weights.h"
#include "quant/solve/gptq.h"
#include "quant/solve/rtn.h"
#include "quant/verify/verify_artifact.h"

namespace quantmill {
namespace {

// One run: what every step of it needs.
class QuantizeRun {
 public:
  QuantizeRun(Backend& backend, Exec& exec, const ModelSource& source, const QuantizePlan& plan,
              const QuantizeCallbacks& callbacks, ArtifactOutput& output, QuantizeReport& report)
      : backend_(backend),
        exec_(exec),
        source_(source),
        plan_(plan),
        callbacks_(callbacks),
        output_(output),
        report_(report) {}

  // The layers, and lm_head if the plan has it.
  void RoundAllLayers();
  // Returns the hash of the calibration tokens.
  std::string CalibrateAndSolve();
  void VerifyOutput();

 private:
  void RoundLayer(const LinearSpec& linear);
  TokenWindows ReadCalibration();
  void QuantizeSite(const BlockSpec& block, Site site, CalibrationStream& stream,
                    BlockWeights& weights);
  Tensor GatherGram(const BlockSpec& block, Site site, CalibrationStream& stream,
                    const BlockWeights& weights);
  Tensor LoadWeight(const LinearSpec& linear);
  void Record(const LinearSpec& linear, ConstMatrix dense, const SolveResult& solved);
  void AddEvent(Event event) { report_.events.push_back(std::move(event)); }
  void AddEvents(const std::vector<SolveEvent>& events, const std::string& where);
  void Progress(const std::string& phase, int64_t done, int64_t total, const std::string& layer);

  Backend& backend_;
  Exec& exec_;
  const ModelSource& source_;
  const QuantizePlan& plan_;
  const QuantizeCallbacks& callbacks_;
  ArtifactOutput& output_;
  QuantizeReport& report_;
  double tokens_per_second_ = 0;
};

void QuantizeRun::Progress(const std::string& phase, int64_t done, int64_t total,
                           const std::string& layer) {
  if (callbacks_.interrupted && callbacks_.interrupted()) {
    throw Error(ErrorCode::kInterrupted, phase, "interrupted; nothing was written");
  }
  if (callbacks_.on_progress) {
    callbacks_.on_progress({phase, done, total, layer, tokens_per_second_});
  }
}

Tensor QuantizeRun::LoadWeight(const LinearSpec& linear) {
  const Stopwatch watch(report_.seconds.load);
  Tensor weight = backend_.Empty(DType::kF32, linear.out, linear.in);
  backend_.Upload(exec_, source_.DenseWeight(linear), weight);
  exec_.stream.Synchronize();
  return weight;
}

void QuantizeRun::Record(const LinearSpec& linear, ConstMatrix dense, const SolveResult& solved) {
  {
    const Stopwatch watch(report_.seconds.write);
    output_.Write(linear.name, solved.linear);
  }
  const Stopwatch watch(report_.seconds.solve);
  LayerResult result;
  result.name = linear.name;
  result.scheme = Describe(solved.linear.scheme);
  result.relative_error = solved.relative_error;
  result.weight_error = WeightError(solved.linear, dense);
  report_.layers.push_back(std::move(result));
  AddEvents(solved.events, linear.name);
}

void QuantizeRun::AddEvents(const std::vector<SolveEvent>& events, const std::string& where) {
  for (const SolveEvent& event : events) {
    switch (event.kind) {
      case SolveEvent::Kind::kDampingRaised:
        AddEvent({"damping_raised", where, event.detail, false});
        break;
      case SolveEvent::Kind::kRoundToNearestFallback:
        AddEvent({"round_to_nearest_fallback", where, event.detail, true});
        break;
      case SolveEvent::Kind::kDeadColumns:
        AddEvent({"dead_columns", where, event.detail, false});
        break;
    }
  }
}

void QuantizeRun::RoundLayer(const LinearSpec& linear) {
  const QuantizedModule* module = plan_.Find(linear.name);
  if (module == nullptr) return;  // stays dense
  SolveResult solved;
  {
    const Tensor weight = LoadWeight(linear);
    const Stopwatch watch(report_.seconds.solve);
    solved = SolveRtn(backend_, exec_, weight, module->scheme);
  }
  Record(linear, source_.checkpoint().View(linear.name + ".weight"), solved);
  source_.Release(linear);
}

void QuantizeRun::RoundAllLayers() {
  std::vector<const LinearSpec*> linears = source_.spec().Linears();
  linears.push_back(&source_.spec().lm_head);
  int64_t done = 0;
  for (const LinearSpec* linear : linears) {
    Progress("quantizing", done++, static_cast<int64_t>(linears.size()), linear->name);
    RoundLayer(*linear);
  }
}

TokenWindows QuantizeRun::ReadCalibration() {
  const Stopwatch watch(report_.seconds.load);
  const CalibrationRecipe& recipe = plan_.recipe.calibration;
  if (recipe.text.empty()) {
    AddEvent({"bundled_calibration", "--calib",
              "no calibration text was given: the bundled one is used. Text like that of your "
              "application gives a better model",
              false});
  }
  const Tokenizer tokenizer = OpenTokenizer(source_);
  const std::vector<int32_t> ids = ReadTokenStream({recipe.text, false}, source_, tokenizer);
  return CutCalibrationWindows(ids, recipe.samples, recipe.sequence_length, recipe.seed);
}

Tensor QuantizeRun::GatherGram(const BlockSpec& block, Site site, CalibrationStream& stream,
                               const BlockWeights& weights) {
  const int64_t in = block.LinearsAt(site).front()->in;
  Tensor gram = backend_.Empty(DType::kF32, in, in);
  backend_.Zero(exec_, gram);
  double statistics = 0;
  double all = 0;
  {
    const Stopwatch watch(all);
    stream.VisitInputs(block, weights, site, [&](ConstMatrix input) {
      const Stopwatch inner(statistics);
      // Window by window, so that the sums do not depend on how many run at a time, which the
      // memory budget decides.
      const int64_t window = plan_.recipe.calibration.sequence_length;
      for (int64_t row = 0; row < input.rows; row += window) {
        backend_.AddGram(exec_, input.Rows(row, window), gram);
      }
    });
  }
  exec_.workspace.Trim();  // the forward's scratch is not kept while the site is solved
  report_.seconds.statistics += statistics;
  report_.seconds.forward += all - statistics;
  return gram;
}

void QuantizeRun::QuantizeSite(const BlockSpec& block, Site site, CalibrationStream& stream,
                               BlockWeights& weights) {
  GptqOptions options;
  options.act_order = plan_.recipe.act_order;
  options.damp_percent = plan_.recipe.damp_percent;
  Tensor gram = GatherGram(block, site, stream, weights);
  std::optional<GptqFactor> factor;
  {
    const Stopwatch watch(report_.seconds.solve);
    factor = PrepareGptq(backend_, exec_, std::move(gram), options);
  }
  for (const LinearSpec* linear : block.LinearsAt(site)) {
    LinearWeights& packed = weights.linears[BlockWeights::IndexOf(block, *linear)];
    const QuantizedModule* module = plan_.Find(linear->name);
    if (module == nullptr) {  // stays dense
      const Stopwatch watch(report_.seconds.load);
      packed = LoadLinear(backend_, exec_, source_, *linear, plan_.stream.compute);
      continue;
    }
    SolveResult solved;
    {
      const Tensor weight = LoadWeight(*linear);
      const Stopwatch watch(report_.seconds.solve);
      solved = SolveGptq(backend_, exec_, *factor, weight, module->scheme);
    }
    Record(*linear, source_.checkpoint().View(linear->name + ".weight"), solved);
    source_.Release(*linear);
    const Stopwatch watch(report_.seconds.load);
    // What was written is what the later layers see.
    packed.weight = backend_.PackQuantized(exec_, solved.linear, plan_.stream.compute);
  }
}

std::string QuantizeRun::CalibrateAndSolve() {
  const TokenWindows windows = ReadCalibration();
  report_.calibration_tokens = windows.tokens();
  const DecoderSpec& spec = source_.spec();
  std::optional<CalibrationStream> stream;
  {
    const Stopwatch watch(report_.seconds.load);
    stream.emplace(backend_, exec_, source_, windows, plan_.stream);
  }
  const auto total = static_cast<int64_t>(spec.blocks.size() * kSites.size());
  int64_t done = 0;
  for (const BlockSpec& block : spec.blocks) {
    BlockWeights weights = LoadBlockExceptWeights(backend_, exec_, BlockSource(source_, block));
    for (const Site site : kSites) {
      Progress("quantizing", done++, total, block.prefix + ": " + NameOf(site));
      QuantizeSite(block, site, *stream, weights);
      const bool last = site == Site::kMlpOut && &block == &spec.blocks.back();
      if (last) break;  // nobody reads the output of the last layer
      const Stopwatch watch(report_.seconds.forward);
      stream->Advance(block, weights, site);
    }
    const double so_far = report_.seconds.forward + report_.seconds.statistics +
                          report_.seconds.solve + report_.seconds.write;
    const int64_t blocks_done = done / static_cast<int64_t>(kSites.size());
    tokens_per_second_ = static_cast<double>(windows.tokens() * blocks_done) / so_far;
  }
  // Its error reaches no other layer, and 8 bits leave nothing to compensate.
  RoundLayer(spec.lm_head);
  return HashTokens(windows.ids);
}

void QuantizeRun::VerifyOutput() {
  const Stopwatch watch(report_.seconds.verify);
  ThreadPool pool(backend_.Info().threads);
  VerifyOptions options;
  options.progress = [&](int64_t done, int64_t total, const std::string& layer) {
    Progress("verifying", done, total, layer);
    return false;
  };
  const VerifyReport verified = VerifyArtifact(output_.path().string(), &source_, pool, options);
  if (verified.passed()) return;
  const Problem& first = verified.problems.front();
  throw Error(ErrorCode::kVerification, first.where,
              fmt::format("{} ({} problems in all; the output was not kept. This is a bug of "
                          "quantmill or of the disk)",
                          first.what, verified.problems.size()));
}

void CheckFallbacks(const QuantizeReport& report, int64_t allowed) {
  int64_t fallbacks = 0;
  const Event* first = nullptr;
  for (const Event& event : report.events) {
    if (!event.is_fallback) continue;
    ++fallbacks;
    if (first == nullptr) first = &event;
  }
  if (first == nullptr || fallbacks <= allowed) return;
  throw Error(ErrorCode::kVerification, first->where,
              fmt::format("{} ({} fallbacks in all, --max-fallbacks allows {}; nothing was kept)",
                          first->what, fallbacks, allowed));
}

// Replacing the input, or a folder around it, would destroy it.
void CheckOutputPath(const ModelSource& source, const std::string& output) {
  const std::filesystem::path to = std::filesystem::weakly_canonical(output);
  const std::filesystem::path from =
      std::filesystem::weakly_canonical(source.checkpoint().folder());
  const auto within = [](const std::filesystem::path& inner, const std::filesystem::path& outer) {
    return std::mismatch(outer.begin(), outer.end(), inner.begin(), inner.end()).first ==
           outer.end();
  };
  if (!within(from, to) && !within(to, from)) return;
  throw Error(ErrorCode::kUsage, "--output",
              output + " is the input, holds it, or lies in it; choose another folder");
}

QuantizeReport NewReport(const ModelSource& source, const QuantizePlan& plan,
                         const std::string& output, const BackendInfo& backend) {
  QuantizeReport report;
  report.output = output;
  report.method = NameOf(plan.recipe.method_choice());
  report.format = plan.recipe.format;
  report.compute = plan.stream.compute == Compute::kBF16 ? "bf16" : "f32";
  report.backend_isa = backend.name + " " + backend.isa;
  report.backend = fmt::format("{}, {} thread{}", report.backend_isa, backend.threads,
                               backend.threads == 1 ? "" : "s");
  report.planned_bytes = plan.memory.total_bytes;
  report.input_bytes = source.checkpoint().total_bytes();
  for (const std::string& tensor : source.unknown_tensors()) {
    report.events.push_back({"carried_tensor", tensor,
                             "belongs to no layer of " + source.spec().architecture +
                                 " that quantmill knows: copied as it is",
                             false});
  }
  return report;
}

}  // namespace

int64_t PeakResidentBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

QuantizeReport Quantize(Backend& backend, Exec& exec, const ModelSource& source,
                        const Recipe& recipe, const std::string& output, bool force,
                        const QuantizeCallbacks& callbacks) {
  CheckOutputPath(source, output);
  const QuantizePlan plan = PlanQuantization(source, recipe, backend.Info());
  if (callbacks.on_plan) callbacks.on_plan(plan.memory);
  QuantizeReport report = NewReport(source, plan, output, backend.Info());
  {
    const Stopwatch total(report.seconds.total);
    ArtifactOutput artifact(source, plan, output, force);
    QuantizeRun run(backend, exec, source, plan, callbacks, artifact, report);
    std::string calibration;
    if (recipe.method == Method::kRtn) {
      run.RoundAllLayers();
    } else {
      calibration = run.CalibrateAndSolve();
    }
    CheckFallbacks(report, recipe.max_fallbacks);
    {
      const Stopwatch watch(report.seconds.write);
      artifact.Finish(calibration, report);
    }
    run.VerifyOutput();
    artifact.Commit();
    report.output_bytes = artifact.weight_bytes();
  }
  report.peak_rss_bytes = PeakResidentBytes();
  return report;
}

}  // namespace quantmill
