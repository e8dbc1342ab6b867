// quantmill convert: the same quantized values in another format's file.
#include "quant/pipeline/convert.h"

#include <string>

#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "tools/command.h"
#include "tools/flags.h"
#include "tools/progress.h"
#include "tools/signals.h"

namespace quantmill {
namespace {

class ConvertCommand : public Command {
 public:
  CLI::App* Register(CLI::App& app) override {
    CLI::App* command =
        app.add_subcommand("convert", "the same quantized weights in another format");
    command->add_option("ARTIFACT", artifact_, "folder of quantized weights")
        ->required()
        ->type_name("");
    command->add_option("-o,--output", output_, "folder to make")->required()->type_name("OUT");
    command->add_flag("--force", force_, "replace OUT if it is there");
    command->add_option("--format", format_, "compressed-tensors, gptq, gptq_v2, awq or fp8")
        ->type_name("NAME");
    TakesOneOf(
        command->add_option("--dequantize", dequantize_, "a dense checkpoint of this type instead"),
        {"f16", "bf16", "f32"});
    AddCommonFlags(*command);
    command->footer(
        "Nothing is rounded again: every value is compared with the original's, and a\n"
        "file that the format cannot hold exactly is refused.\n\n"
        "Example: what quantize wrote, for a server that reads GPTQ\n"
        "  quantmill convert sample-w4 -o sample-gptq --format gptq");
    return command;
  }

  int Run(Console& console) override {
    if (format_.empty() == dequantize_.empty()) {
      throw Error(ErrorCode::kUsage, "--format", "give --format or --dequantize, one of them");
    }
    const ModelSource source = ModelSource::Open(artifact_);
    ThreadPool pool(common().threads > 0 ? common().threads : AvailableCpus());
    ProgressLine line(console.shows_progress());
    const ConvertProgress progress = [&](const std::string& phase, int64_t done, int64_t total,
                                         const std::string& layer) {
      ThrowIfInterrupted();
      line.Update({phase, done, total, 0, layer});
    };
    const ConvertReport report =
        dequantize_.empty()
            ? ConvertArtifact(source, format_, output_, force_, pool, progress)
            : DequantizeArtifact(source, DenseType(), output_, force_, pool, progress);
    line.Clear();
    console.WriteReport(report);
    return 0;
  }

 private:
  DType DenseType() const {
    if (dequantize_ == "f32") return DType::kF32;
    return dequantize_ == "bf16" ? DType::kBF16 : DType::kF16;
  }

  std::string artifact_;
  std::string output_;
  bool force_ = false;
  std::string format_;
  std::string dequantize_;
};

}  // namespace

std::unique_ptr<Command> MakeConvertCommand() { return std::make_unique<ConvertCommand>(); }

}  // namespace quantmill
