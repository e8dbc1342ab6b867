// quantmill eval: perplexity by a stated protocol, and divergence from a reference.
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "quant/runtime/kv_precision.h"
#include "tools/command.h"
#include "tools/evaluation.h"
#include "tools/flag_set.h"
#include "tools/session.h"
#include "tools/text_output.h"

namespace quantmill {
namespace {

class EvalCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override;
  int Run(Console& console) override;

 private:
  EvaluationFlags flags_;
  std::string log_probs_;
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
  add("--log-probs", log_probs_,
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

int EvalCommand::Run(Console& console) {
  if (flags_.text.empty() == flags_.tokens_file.empty()) {
    throw Error(ErrorCode::kUsage, "eval", "needs either --text FILE or --tokens-file FILE");
  }
  Session session(common());
  std::optional<TextOutput> log_probs;
  if (!log_probs_.empty()) log_probs.emplace(log_probs_, "[[");
  const Evaluation evaluation = EvaluateModels(flags_, session, console);
  if (log_probs) log_probs->Write(nlohmann::json(evaluation.log_probs).dump() + "\n");
  console.WriteReport(evaluation.report);
  return 0;
}

}  // namespace

std::unique_ptr<Command> MakeEvalCommand() { return std::make_unique<EvalCommand>(); }

}  // namespace quantmill
