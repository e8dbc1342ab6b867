#include "quant/pipeline/quantize.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "formats/file.h"
#include "kernels/core/error.h"
#include "quant/pipeline/artifact_output.h"
#include "quant/pipeline/gguf_output.h"
#include "quant/pipeline/plan_report.h"
#include "quant/pipeline/quantize_run.h"
#include "quant/pipeline/savepoints.h"
#include "quant/pipeline/stopwatch.h"
#include "quant/report/units.h"

namespace quantmill {
namespace {

std::unique_ptr<QuantizedOutput> OpenOutput(const ModelSource& source, const QuantizePlan& plan,
                                            const std::string& output, bool force, int threads) {
  if (plan.gguf) return std::make_unique<GgufOutput>(source, plan, output, force, threads);
  return std::make_unique<ArtifactOutput>(source, plan, output, force);
}

void VerifyOutput(QuantizedOutput& output, int threads, const QuantizeCallbacks& callbacks,
                  QuantizeReport& report) {
  const Stopwatch watch(report.seconds.verify);
  output.Verify(threads, [&](int64_t done, int64_t total, const std::string& layer) {
    ReportProgress(callbacks, {"verifying", done, total, layer, 0});
  });
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

// Null where the recipe gives nothing that is worth keeping, or the disk has no room for it.
std::unique_ptr<Savepoints> OpenSavepoints(const ModelSource& source, const QuantizePlan& plan,
                                           const std::string& output, uint64_t output_bytes,
                                           const OutputOptions& options,
                                           const QuantizeCallbacks& callbacks) {
  if (!options.savepoints || !plan.recipe.calibrated()) return nullptr;
  const auto note = [&](const std::string& text) {
    if (callbacks.on_note) callbacks.on_note(text);
  };
  using Earlier = Savepoints::Earlier;
  const Earlier earlier = options.resume  ? Earlier::kResume
                          : options.force ? Earlier::kDiscard
                                          : Earlier::kRefuse;
  auto savepoints = std::make_unique<Savepoints>(output, earlier);
  if (savepoints->blocks() > 0) {
    note(fmt::format("going on after {} of {} blocks that an earlier run finished",
                     savepoints->blocks(), source.spec().blocks.size()));
    return savepoints;
  }
  uint64_t needed = output_bytes;
  for (const QuantizedModule& module : plan.modules.all()) {
    needed += SavedBytes({module, plan.BlocksOf(module.name)});
  }
  const std::optional<uint64_t> free = FreeBytes(savepoints->path());
  if (!free || *free >= needed) return savepoints;
  note(
      fmt::format("the disk has no room for the output and savepoints ({} needed, {} free): if "
                  "this run is interrupted, the next one begins again",
                  FormatBytes(needed), FormatBytes(*free)));
  return nullptr;
}

// Whether the next run would fail in the same way, whatever is kept. Not for what is wrong with the
// savepoints themselves.
bool WouldFailAgain(const Error& error, const Savepoints& savepoints) {
  return error.code() == ErrorCode::kVerification ||
         (error.code() == ErrorCode::kBadInput &&
          !error.where().starts_with(savepoints.path().string()));
}

// After a failure. Throws an error that tells of --resume where finished blocks serve the next run.
void KeepOrRemove(Savepoints& savepoints, const Error& error) {
  if (savepoints.blocks() == 0 || WouldFailAgain(error, savepoints)) return savepoints.Remove();
  const bool interrupted = error.code() == ErrorCode::kInterrupted;
  if (!interrupted && error.code() != ErrorCode::kEnvironment) return;
  throw Error(interrupted ? ErrorCode::kResumable : error.code(), error.where(),
              fmt::format("{}; {} finished block{} kept in {}: the same command with --resume goes "
                          "on from there",
                          interrupted ? "interrupted" : error.message(), savepoints.blocks(),
                          savepoints.blocks() == 1 ? " is" : "s are", savepoints.path().string()));
}

void Make(QuantizeRun& run, const ModelSource& source, const Recipe& recipe, QuantizedOutput& made,
          int threads, const QuantizeCallbacks& callbacks, QuantizeReport& report) {
  const size_t blocks = source.spec().blocks.size();
  std::string calibration;
  if (!recipe.calibrated()) {
    run.RoundBlocks(blocks);
  } else {
    calibration = run.CalibrateAndSolve(blocks);
  }
  CheckFallbacks(report, recipe.max_fallbacks);
  {
    const Stopwatch watch(report.seconds.write);
    made.Finish(calibration, report);
  }
  VerifyOutput(made, threads, callbacks, report);
  made.Commit();
}

QuantizeReport NewReport(const ModelSource& source, const QuantizePlan& plan,
                         const std::string& output, const BackendInfo& backend) {
  QuantizeReport report;
  report.output = output;
  report.method = NameOf(plan.recipe.method_choice());
  report.format = plan.recipe.format;
  report.compute = NameOf(*plan.recipe.compute);
  report.backend_isa = backend.name + " " + backend.isa;
  report.backend = fmt::format("{}, {} thread{}", report.backend_isa, backend.threads,
                               backend.threads == 1 ? "" : "s");
  report.budget = plan.recipe.chosen_for;
  report.planned_bytes = plan.memory.total_bytes;
  report.planned_gpu_bytes = plan.memory.gpu_bytes;
  report.input_bytes = source.original().checkpoint().total_bytes();
  for (const std::string& tensor : source.unknown_tensors()) {
    report.events.push_back({"carried_tensor", tensor,
                             "belongs to no layer of " + source.spec().architecture +
                                 " that quantmill knows: copied as it is",
                             false});
  }
  if (std::optional<Event> event = DroppedHead(source)) report.events.push_back(std::move(*event));
  if (std::optional<Event> event = UntiedHead(source, plan.recipe)) {
    report.events.push_back(std::move(*event));
  }
  const Checkpoint& original = source.original().checkpoint();
  if (HoldsBlocks(original)) {
    report.events.push_back({"decoded_input", source.path(),
                             "is quantized already (" + StoredTypes(original) +
                                 "): its values are what is kept here, as far as possible",
                             false});
  }
  for (Event& note : TargetNotes(source, plan)) report.events.push_back(std::move(note));
  for (Event& event : BlockFallbacks(plan)) report.events.push_back(std::move(event));
  return report;
}

}  // namespace

void ReportProgress(const QuantizeCallbacks& callbacks, const QuantizeProgress& progress) {
  if (callbacks.interrupted && callbacks.interrupted()) {
    throw Error(ErrorCode::kInterrupted, progress.phase, "interrupted; nothing was written");
  }
  if (callbacks.on_progress) callbacks.on_progress(progress);
}

int64_t PeakResidentBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<int64_t>(usage.ru_maxrss) * 1024;
}

QuantizeReport Quantize(Backend& backend, Exec& exec, const ModelSource& source,
                        const Recipe& recipe, const std::string& output,
                        const OutputOptions& options, const QuantizeCallbacks& callbacks) {
  CheckOutputPath(source, output);
  Check(recipe.rotate == (source.derivation() != nullptr), "Quantize: a model rotated or not");
  const QuantizePlan plan = PlanQuantization(source, recipe, backend.Info());
  if (callbacks.on_plan) callbacks.on_plan(plan.memory);
  backend.LimitMemory(recipe.max_gpu_mem);
  QuantizeReport report = NewReport(source, plan, output, backend.Info());
  {
    const Stopwatch total(report.seconds.total);
    const std::unique_ptr<QuantizedOutput> made =
        OpenOutput(source, plan, output, options.force, backend.Info().threads);
    const std::unique_ptr<Savepoints> savepoints =
        OpenSavepoints(source, plan, output, made->weight_bytes(), options, callbacks);
    QuantizeRun run(backend, exec, source, plan, callbacks, made.get(), savepoints.get(), report);
    try {
      Make(run, source, recipe, *made, backend.Info().threads, callbacks, report);
    } catch (const Error& error) {
      if (savepoints != nullptr) KeepOrRemove(*savepoints, error);
      throw;
    }
    if (savepoints != nullptr) savepoints->Remove();
    report.output_bytes = made->weight_bytes();
  }
  report.peak_rss_bytes = PeakResidentBytes();
  report.peak_gpu_bytes = backend.PeakMemory();
  return report;
}

}  // namespace quantmill
