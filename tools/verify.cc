// quantmill verify: every byte of an artifact checked, by its format's own rules.
#include <chrono>
#include <optional>
#include <string>

#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/recipe_draft.h"
#include "quant/verify/verify_artifact.h"
#include "tools/command.h"
#include "tools/flag_set.h"
#include "tools/progress.h"
#include "tools/signals.h"

namespace quantmill {
namespace {

class VerifyCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override {
    FlagSet command(app, "verify", "check every byte of an artifact");
    command.Add("ARTIFACT", artifact_, "folder that quantize wrote, or a GGUF file")
        .Required()
        .ValueName("");
    command.Add("--reference", reference_, "the checkpoint it was made from").ValueName("MODEL");
    command.Add("--target", target_, "vllm, sglang, transformers or llama.cpp: its\nrules too")
        .ValueName("STACK");
    command.Add("--tp", tensor_parallel_, "processes that share each layer there;\ndefault: 1")
        .IntegerIn(kTensorParallelRange);
    AddCommonFlags(command);
    command.Footer(
        "Exit code 1 and a list of problems if something is wrong.\n\n"
        "Example: also compare with the original, tensor by tensor\n"
        "  quantmill verify sample-w4 --reference calib_data/sample_model");
    return command;
  }

  int Run(Console& console) override {
    std::optional<ModelSource> reference;
    if (!reference_.empty()) reference = ModelSource::Open(reference_, {.codes = false});
    ThreadPool pool(common().threads > 0 ? common().threads : AvailableCpus());
    ProgressLine line(console.shows_progress());
    VerifyOptions options;
    if (!target_.empty()) options.target.stack = StackNamed(target_, "--target");
    if (target_.empty() && tensor_parallel_ != 1) {
      throw Error(ErrorCode::kUsage, "--tp", "needs --target");
    }
    options.target.tensor_parallel = tensor_parallel_;
    options.progress = [&](int64_t done, int64_t total, const std::string& layer) {
      line.Update({"verifying", done, total, 0, layer});
      return Interrupted();
    };
    VerifyReport report =
        VerifyArtifact(artifact_, reference ? &*reference : nullptr, pool, options);
    line.Clear();
    console.WriteReport(report);
    return report.passed() ? 0 : static_cast<int>(ErrorCode::kVerification);
  }

 private:
  std::string artifact_;
  std::string reference_;
  std::string target_;
  int64_t tensor_parallel_ = 1;
};

}  // namespace

std::unique_ptr<Command> MakeVerifyCommand() { return std::make_unique<VerifyCommand>(); }

}  // namespace quantmill
