// quantmill plan: what quantize would do, without doing it.
#include "quant/pipeline/plan.h"

#include <string>

#include "kernels/core/error.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/plan_report.h"
#include "quant/pipeline/sensitivity.h"
#include "tools/command.h"
#include "tools/progress.h"
#include "tools/recipe_flags.h"
#include "tools/session.h"
#include "tools/signals.h"

namespace quantmill {
namespace {

class PlanCommand : public Command {
 public:
  CLI::App* Register(CLI::App& app) override {
    CLI::App* command =
        app.add_subcommand("plan", "what quantize would make, and what that would take");
    command->add_option("MODEL", model_, "dense checkpoint: folder, or cached hub id")
        ->required()
        ->type_name("");
    command->add_flag("--sensitivity", sensitivity_,
                      "also measure what each group of layers costs at\n2 to 8 bits");
    recipe_.Register(*command);
    AddCommonFlags(*command);
    command->footer(
        "Nothing is written. --budget is not spent here: it shows in --sensitivity.\n\n"
        "Example: 4 bits, but 8 for the down projections\n"
        "  quantmill plan calib_data/sample_model --group-size 64 \\\n"
        "      --rule '.*down_proj=w8a16'");
    return command;
  }

  int Run(Console& console) override {
    const Recipe recipe = recipe_.Resolve();
    if (sensitivity_ && recipe.rotate) {
      throw Error(ErrorCode::kUsage, "--sensitivity",
                  "measures the model as it is, and --rotate changes it; leave one out");
    }
    Session session(common());
    const ModelSource source = ModelSource::Open(model_);
    const QuantizePlan plan = PlanQuantization(source, recipe, session.backend().Info());
    PlanReport report = DescribePlan(source, plan);
    if (sensitivity_) {
      ProgressLine line(console.shows_progress());
      report.sensitivity = DescribeSensitivity(
          MeasureSensitivity(session.backend(), session.exec(), source, plan,
                             [&](int64_t done, int64_t total, const std::string& layer) {
                               ThrowIfInterrupted();
                               line.Update({"measuring", done, total, 0, layer});
                             }));
    }
    console.WriteReport(report);
    return 0;
  }

 private:
  std::string model_;
  bool sensitivity_ = false;
  RecipeFlags recipe_;
};

}  // namespace

std::unique_ptr<Command> MakePlanCommand() { return std::make_unique<PlanCommand>(); }

}  // namespace quantmill
