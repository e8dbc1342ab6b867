// quantmill quantize: a dense checkpoint in, a verified artifact out.
#include "quant/pipeline/quantize.h"

#include <fmt/format.h>

#include <filesystem>
#include <optional>
#include <string>

#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/model/rotated_model.h"
#include "quant/pipeline/budget.h"
#include "quant/pipeline/budget_search.h"
#include "quant/pipeline/savepoints.h"
#include "quant/pipeline/sensitivity.h"
#include "tools/command.h"
#include "tools/leftovers.h"
#include "tools/output_name.h"
#include "tools/progress.h"
#include "tools/recipe_flags.h"
#include "tools/session.h"
#include "tools/signals.h"

namespace quantmill {
namespace {

class QuantizeCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override;
  int Run(Console& console) override;

 private:
  // Before minutes of rotating or measuring: Quantize would refuse it too.
  void CheckOutput(const Recipe& recipe) const;
  Recipe ChooseBits(Session& session, const ModelSource& source, const Recipe& recipe,
                    const QuantizeCallbacks& callbacks, ProgressLine& line, const Console& console);

  std::string model_;
  std::string output_;
  bool force_ = false;
  bool resume_ = false;
  bool no_savepoints_ = false;
  RecipeFlags recipe_;
};

FlagSet QuantizeCommand::Register(CLI::App& app) {
  FlagSet command(app, "quantize", "write a smaller model, and check what was written");
  command.Add("MODEL", model_, "dense checkpoint: folder, or cached hub id")
      .Required()
      .ValueName("");
  command.Add("-o,--output", output_, "folder to make; for gguf, file").Required().ValueName("OUT");
  command.AddSwitch("--force", force_, "replace OUT if it is there");
  command.AddSwitch("--resume", resume_,
                    "go on from the blocks that an interrupted\nrun finished, if there are any");
  command.AddSwitch("--no-savepoints", no_savepoints_,
                    "do not keep finished blocks beside OUT while\nit is made");
  recipe_.Register(command);
  AddCommonFlags(command);
  command.Footer(
      "Example: 4-bit weights in groups of 64, calibrated on your own text\n"
      "  quantmill quantize calib_data/sample_model -o sample-w4 --group-size 64 \\\n"
      "      --calib calib_data/calibration.txt");
  return command;
}

void QuantizeCommand::CheckOutput(const Recipe& recipe) const {
  if (force_ || !(recipe.rotate || recipe.budget)) return;
  if (!resume_) CheckNoSavepoints(output_);
  if (!std::filesystem::exists(output_)) return;
  throw Error(ErrorCode::kUsage, "--output",
              output_ + " exists already; choose another name, or --force");
}

// The recipe with bits chosen within its budget; what was tried and chosen is told.
Recipe QuantizeCommand::ChooseBits(Session& session, const ModelSource& source,
                                   const Recipe& recipe, const QuantizeCallbacks& callbacks,
                                   ProgressLine& line, const Console& console) {
  Backend& backend = session.backend();
  const QuantizePlan plan = PlanQuantization(source, recipe, backend.Info());
  const Sensitivity sensitivity =
      MeasureSensitivity(backend, session.exec(), source, plan,
                         [&](int64_t done, int64_t total, const std::string& layer) {
                           ThrowIfInterrupted();
                           line.Update({"measuring", done, total, 0, layer});
                         });
  line.Clear();
  const std::string budget = BudgetText(*recipe.budget);
  if (recipe.budget->kind == Budget::Kind::kBits) {
    const BitAllocation allocation = AllocateBits(sensitivity, recipe.budget->limit);
    console.Note(fmt::format("budget {}: {:.3f} bits a weight, predicted KL {:.4f}\n", budget,
                             allocation.average_bits, allocation.predicted_kl));
    return Allocated(plan.recipe, sensitivity, allocation);
  }
  BudgetSearchOptions options;
  options.on_trial = [&](const BudgetTrial& trial) {
    line.Clear();
    console.Note(fmt::format("budget {}: {:.3f} bits a weight measure {:.4g}: {}\n", budget,
                             trial.average_bits, trial.measured, trial.kept ? "kept" : "too much"));
  };
  return SearchBudget(backend, session.exec(), source, plan.recipe, sensitivity, output_ + ".trial",
                      callbacks, options);
}

int QuantizeCommand::Run(Console& console) {
  if (resume_ && no_savepoints_) {
    throw Error(ErrorCode::kUsage, "--resume", "goes on from savepoints: not with --no-savepoints");
  }
  Recipe recipe = recipe_.Resolve();
  if (!recipe.gguf) {
    RefuseFolderNamedGguf(output_, "add --format gguf, or give the folder another name");
  }
  Session session(common());
  const ModelSource original = ModelSource::Open(model_, {.codes = false});
  recipe_.NoteUnused(recipe, console);
  CheckOutput(recipe);
  NoteLeftovers(output_, console);
  ProgressLine line(console.shows_progress());
  std::optional<RotatedModel> rotated;
  if (recipe.rotate) {
    PlanQuantization(original, recipe, session.backend().Info());  // refuses what cannot work
    ThreadPool pool(session.backend().Info().threads);
    rotated.emplace(original, output_, pool,
                    [&](int64_t done, int64_t total, const std::string& tensor) {
                      ThrowIfInterrupted();
                      line.Update({"rotating", done, total, 0, tensor});
                    });
  }
  const ModelSource& source = rotated ? rotated->model() : original;
  MemoryPlan plan;
  bool plan_shown = false;
  QuantizeCallbacks callbacks;
  callbacks.on_plan = [&](const MemoryPlan& made) { plan = made; };
  callbacks.on_progress = [&](const QuantizeProgress& p) {
    // Not before: between plan and first step the output may be refused.
    if (!plan_shown) console.Note(ToText(plan) + "\n");
    plan_shown = true;
    line.Update({p.phase, p.done, p.total, p.tokens_per_second, p.layer});
  };
  callbacks.on_note = [&](const std::string& text) { console.Note("note: " + text + "\n"); };
  callbacks.interrupted = Interrupted;
  if (recipe.budget) recipe = ChooseBits(session, source, recipe, callbacks, line, console);
  const QuantizeReport report =
      Quantize(session.backend(), session.exec(), source, recipe, output_,
               {.force = force_, .savepoints = !no_savepoints_, .resume = resume_}, callbacks);
  line.Clear();
  if (!console.json()) {
    console.WriteReport(report);
    return 0;
  }
  nlohmann::ordered_json json = ToJson(report);
  json["memory_plan"] = ToJson(plan);
  console.Write(JsonText(json));
  return 0;
}

}  // namespace

std::unique_ptr<Command> MakeQuantizeCommand() { return std::make_unique<QuantizeCommand>(); }

}  // namespace quantmill
