// quantmill quantize: a dense checkpoint in, a verified artifact out.
#include "quant/pipeline/quantize.h"

#include <fmt/format.h>

#include <string>

#include "quant/model/model_source.h"
#include "quant/pipeline/budget.h"
#include "quant/pipeline/sensitivity.h"
#include "tools/command.h"
#include "tools/progress.h"
#include "tools/recipe_flags.h"
#include "tools/session.h"
#include "tools/signals.h"

namespace quantmill {
namespace {

class QuantizeCommand : public Command {
 public:
  CLI::App* Register(CLI::App& app) override;
  int Run(Console& console) override;

 private:
  std::string model_;
  std::string output_;
  bool force_ = false;
  RecipeFlags recipe_;
};

CLI::App* QuantizeCommand::Register(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("quantize", "write a smaller model, and check what was written");
  command->add_option("MODEL", model_, "dense checkpoint: folder, or cached hub id")
      ->required()
      ->type_name("");
  command->add_option("-o,--output", output_, "folder to make")->required()->type_name("OUT");
  command->add_flag("--force", force_, "replace OUT if it is there");
  recipe_.Register(*command);
  AddCommonFlags(*command);
  command->footer(
      "Example: 4-bit weights in groups of 64, calibrated on your own text\n"
      "  quantmill quantize calib_data/sample_model -o sample-w4 --group-size 64 \\\n"
      "      --calib calib_data/calibration.txt");
  return command;
}

// The recipe with bits chosen within its budget; what was chosen is told.
Recipe ChooseBits(Session& session, const ModelSource& source, const Recipe& recipe,
                  ProgressLine& line, const Console& console) {
  const QuantizePlan plan = PlanQuantization(source, recipe, session.backend().Info());
  const Sensitivity sensitivity =
      MeasureSensitivity(session.backend(), session.exec(), source, plan,
                         [&](int64_t done, int64_t total, const std::string& layer) {
                           ThrowIfInterrupted();
                           line.Update({"measuring", done, total, 0, layer});
                         });
  line.Clear();
  const BitAllocation allocation = AllocateBits(sensitivity, recipe.budget->limit);
  console.Note(fmt::format("budget {}: {:.3f} bits a weight, predicted KL {:.4f}\n",
                           BudgetText(*recipe.budget), allocation.average_bits,
                           allocation.predicted_kl));
  return Allocated(plan.recipe, sensitivity, allocation);
}

int QuantizeCommand::Run(Console& console) {
  Recipe recipe = recipe_.Resolve();
  Session session(common());
  const ModelSource source = ModelSource::Open(model_);
  recipe_.NoteUnused(recipe, console);
  ProgressLine line(console.shows_progress());
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
  callbacks.interrupted = Interrupted;
  if (recipe.budget) recipe = ChooseBits(session, source, recipe, line, console);
  const QuantizeReport report =
      Quantize(session.backend(), session.exec(), source, recipe, output_, force_, callbacks);
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
