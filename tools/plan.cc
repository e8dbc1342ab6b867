// quantmill plan: what quantize would do, without doing it.
#include "quant/pipeline/plan.h"

#include <optional>
#include <string>

#include "kernels/core/error.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/budget.h"
#include "quant/pipeline/plan_report.h"
#include "quant/pipeline/plan_time.h"
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
  FlagSet Register(CLI::App& app) override {
    FlagSet command(app, "plan", "what quantize would make, and what that would take");
    command.Add("MODEL", model_, "dense checkpoint: folder, or cached hub id")
        .Required()
        .ValueName("");
    command.AddSwitch("--sensitivity", sensitivity_,
                      "also measure what each group of layers costs at\n2 to 8 bits");
    command.AddSwitch("--no-time", no_time_,
                      "do not measure how long it would take (which\nsolves one block)");
    recipe_.Register(command);
    AddCommonFlags(command);
    command.Footer(
        "Nothing is written. For --budget \"kl<=...\" or \"perplexity<=...\" the layers are\n"
        "a prediction, from which quantize starts to measure.\n\n"
        "Example: 4 bits, but 8 for the down projections\n"
        "  quantmill plan calib_data/sample_model --group-size 64 \\\n"
        "      --rule '.*down_proj=w8a16'");
    return command;
  }

  int Run(Console& console) override {
    const Recipe recipe = recipe_.Resolve();
    if (recipe.rotate && (sensitivity_ || recipe.budget)) {
      throw Error(ErrorCode::kUsage, sensitivity_ ? "--sensitivity" : "--budget",
                  "plan measures the model as it is, and --rotate changes it; leave one out");
    }
    Session session(common());
    const ModelSource source = ModelSource::Open(model_, {.codes = false});
    QuantizePlan plan = PlanQuantization(source, recipe, session.backend().Info());
    ProgressLine line(console.shows_progress());
    std::optional<Sensitivity> sensitivity;
    std::optional<double> predicted_kl;
    if (sensitivity_ || recipe.budget) sensitivity = Measure(session, source, plan, line);
    if (recipe.budget) {
      const BitAllocation allocation = PredictAllocation(*sensitivity, *recipe.budget);
      predicted_kl = allocation.predicted_kl;
      plan = PlanQuantization(source, Allocated(plan.recipe, *sensitivity, allocation),
                              session.backend().Info());
    }
    PlanReport report = DescribePlan(source, plan);
    report.predicted_kl = predicted_kl;
    if (recipe.budget) report.budget = BudgetText(*recipe.budget);
    if (sensitivity_) report.sensitivity = DescribeSensitivity(*sensitivity);
    if (!no_time_) report.seconds = EstimateTime(session, source, plan, line);
    console.WriteReport(report);
    return 0;
  }

 private:
  static Sensitivity Measure(Session& session, const ModelSource& source, const QuantizePlan& plan,
                             ProgressLine& line) {
    Sensitivity measured =
        MeasureSensitivity(session.backend(), session.exec(), source, plan,
                           [&](int64_t done, int64_t total, const std::string& layer) {
                             ThrowIfInterrupted();
                             line.Update({"measuring", done, total, 0, layer});
                           });
    line.Clear();
    return measured;
  }

  static PhaseSeconds EstimateTime(Session& session, const ModelSource& source,
                                   const QuantizePlan& plan, ProgressLine& line) {
    QuantizeCallbacks callbacks;
    callbacks.interrupted = Interrupted;
    callbacks.on_progress = [&](const QuantizeProgress& p) {
      line.Update({"measuring", p.done, p.total, 0, p.layer});
    };
    const PhaseSeconds seconds =
        EstimateSeconds(session.backend(), session.exec(), source, plan, callbacks);
    line.Clear();
    return seconds;
  }

  std::string model_;
  bool sensitivity_ = false;
  bool no_time_ = false;
  RecipeFlags recipe_;
};

}  // namespace

std::unique_ptr<Command> MakePlanCommand() { return std::make_unique<PlanCommand>(); }

}  // namespace quantmill
