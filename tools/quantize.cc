// quantmill quantize: a dense checkpoint in, a verified artifact out.
#include "quant/pipeline/quantize.h"

#include <cstdint>
#include <optional>
#include <string>

#include "formats/artifact.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/recipe.h"
#include "quant/pipeline/schemes.h"
#include "quant/report/units.h"
#include "tools/command.h"
#include "tools/flags.h"
#include "tools/progress.h"
#include "tools/session.h"
#include "tools/signals.h"

namespace quantmill {
namespace {

struct QuantizeFlags {
  std::string model;
  std::string output;
  std::string method;
  std::string scheme = "w4a16";
  std::string group_size;  // empty: the scheme's default
  bool asymmetric = false;
  std::string format = "compressed-tensors";
  CalibrationRecipe calibration;
  bool no_act_order = false;
  double damp_percent = 0.01;
  std::string compute = "auto";
  std::string max_host_mem;
  int64_t max_fallbacks = 0;
  bool force = false;
};

Recipe RecipeOf(const QuantizeFlags& flags, const Session& session) {
  Recipe recipe;
  SchemeChoice scheme = ParseScheme(flags.scheme, "--scheme");
  if (!flags.group_size.empty())
    scheme.group_size = ParseGroupSize(flags.group_size, "--group-size");
  if (flags.asymmetric) scheme.symmetric = false;
  recipe.scheme = MakeScheme(scheme, "--scheme");
  const MethodChoice method =
      flags.method.empty() ? DefaultMethod(recipe.scheme) : MethodNamed(flags.method, "--method");
  recipe.transform = method.transform;
  recipe.method = method.method;
  recipe.format = FindArtifactFormat(flags.format).name();
  recipe.calibration = flags.calibration;
  recipe.act_order = !flags.no_act_order;
  recipe.damp_percent = flags.damp_percent;
  if (flags.compute != "auto") recipe.compute = session.ComputeNamed(flags.compute);
  if (!flags.max_host_mem.empty()) {
    recipe.max_host_mem = ParseByteSize(flags.max_host_mem, "--max-host-mem");
  }
  recipe.max_fallbacks = flags.max_fallbacks;
  return recipe;
}

class QuantizeCommand : public Command {
 public:
  CLI::App* Register(CLI::App& app) override;
  int Run(Console& console) override;

 private:
  void AddMethodFlags(CLI::App& command);
  void AddCalibrationFlags(CLI::App& command);

  QuantizeFlags flags_;
};

CLI::App* QuantizeCommand::Register(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("quantize", "write a smaller model, and check what was written");
  command->add_option("MODEL", flags_.model, "dense checkpoint: folder, or cached hub id")
      ->required()
      ->type_name("");
  command->add_option("-o,--output", flags_.output, "folder to make")->required()->type_name("OUT");
  command->add_flag("--force", flags_.force, "replace OUT if it is there");
  AddMethodFlags(*command);
  AddCalibrationFlags(*command);
  AddCommonFlags(*command);
  command->footer(
      "Example: 4-bit weights in groups of 64, calibrated on your own text\n"
      "  quantmill quantize calib_data/sample_model -o sample-w4 --group-size 64 \\\n"
      "      --calib calib_data/calibration.txt");
  return command;
}

void QuantizeCommand::AddMethodFlags(CLI::App& command) {
  const char* group = "What to make";
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return command.add_option(flag, value, help)->group(group);
  };
  add("--method", flags_.method,
      "gptq, rtn, awq[+gptq|+rtn] or\nsmoothquant[+gptq|+rtn]; default: what\nsuits the scheme")
      ->type_name("NAME");
  add("--scheme", flags_.scheme, "default: w4a16")->type_name("NAME");
  add("--group-size", flags_.group_size,
      "inputs that share a scale; default: 128\nfor w4a16, channel for w8a16")
      ->type_name("32|64|128|channel");
  command.add_flag("--asymmetric", flags_.asymmetric, "store zero points")->group(group);
  add("--format", flags_.format, "default: compressed-tensors")->type_name("NAME");
  command.add_flag("--no-act-order", flags_.no_act_order, "gptq: solve columns as they are stored")
      ->group(group);
  TakesNumber(add("--damp-percent", flags_.damp_percent,
                  "gptq: share of the mean diagonal that is added\nto it; default: 0.01"),
              0, 1);
  TakesInteger(add("--max-fallbacks", flags_.max_fallbacks, "more of them fail; default: 0"), 0,
               1'000'000);
  add("--max-host-mem", flags_.max_host_mem, "budget, such as 2GiB; default: none")
      ->type_name("SIZE");
}

void QuantizeCommand::AddCalibrationFlags(CLI::App& command) {
  const auto add = [&](const char* flag, auto& value, const char* help) {
    return command.add_option(flag, value, help)->group("Calibration (gptq)");
  };
  CalibrationRecipe& calibration = flags_.calibration;
  add("--calib", calibration.text, "text, .json or .jsonl; default: the bundled text")
      ->type_name("FILE");
  TakesInteger(add("--samples", calibration.samples, "windows; default: 128"), 1, 1'000'000);
  TakesInteger(
      add("--sequence-length", calibration.sequence_length, "tokens of a window; default: 512"), 2,
      1'000'000);
  TakesInteger(add("--calib-seed", calibration.seed, "draw windows; default: the first ones"), 0,
               INT64_MAX);
  TakesOneOf(add("--compute", flags_.compute, "type of the forward; default: auto"),
             {"auto", "f32", "bf16"});
}

int QuantizeCommand::Run(Console& console) {
  Session session(common());
  const Recipe recipe = RecipeOf(flags_, session);
  const ModelSource source = ModelSource::Open(flags_.model);
  if (recipe.method == Method::kRtn && !recipe.calibration.text.empty()) {
    console.Note("note: --calib is not used: rtn needs no calibration\n");
  }
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
  const QuantizeReport report = Quantize(session.backend(), session.exec(), source, recipe,
                                         flags_.output, flags_.force, callbacks);
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
