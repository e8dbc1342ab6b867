// quantmill convert: the same quantized values in another format's file, or any model as GGUF.
#include "quant/pipeline/convert.h"

#include <string>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/convert_folder.h"
#include "quant/pipeline/convert_gguf.h"
#include "quant/pipeline/gguf_types.h"
#include "tools/command.h"
#include "tools/flag_set.h"
#include "tools/leftovers.h"
#include "tools/output_name.h"
#include "tools/progress.h"
#include "tools/signals.h"

namespace quantmill {
namespace {

class ConvertCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override {
    FlagSet command(app, "convert", "the same quantized weights in another format");
    command
        .Add("MODEL", artifact_, "folder of quantized weights, or a GGUF file; for gguf, any model")
        .Required()
        .ValueName("");
    command.Add("-o,--output", output_, "folder to make; for gguf, file")
        .Required()
        .ValueName("OUT");
    command.AddSwitch("--force", force_, "replace OUT if it is there");
    command
        .Add("--format", format_,
             "compressed-tensors, gptq, gptq_v2, awq, fp8 or gguf;\n"
             "without one, a GGUF file becomes a dense folder")
        .ValueName("NAME");
    command.Add("--dequantize", dequantize_, "a dense checkpoint of this type instead")
        .OneOf({"f16", "bf16", "f32"});
    AddGgufFlags(command);
    AddCommonFlags(command);
    command.Footer(
        "Nothing is rounded again: every value is compared with the original's, and a\n"
        "file that the format cannot hold exactly is refused. Only for gguf may MODEL be dense:\n"
        "its weights are then encoded in the type that --gguf-type names. A GGUF file becomes a\n"
        "Hugging Face folder again, tokenizer included: F16 (or --dequantize) where it was\n"
        "quantized.\n\n"
        "Example: what quantize wrote, for a server that reads GPTQ\n"
        "  quantmill convert sample-w4 -o sample-gptq --format gptq");
    return command;
  }

  int Run(Console& console) override {
    const bool from_gguf = IsGguf(artifact_);
    const bool to_folder = from_gguf && format_.empty();
    if (!to_folder && format_.empty() == dequantize_.empty()) {
      throw Error(ErrorCode::kUsage, "--format", "give --format or --dequantize, one of them");
    }
    const bool gguf = format_ == "gguf";
    for (const Flag& flag : gguf_flags_) {
      if (gguf || !flag.given()) continue;
      if (from_gguf && flag.name() == "--gguf-pre") continue;
      throw Error(ErrorCode::kUsage, flag.name(), "is only for --format gguf");
    }
    if (!gguf) {
      // A GGUF file is not written anew.
      RefuseFolderNamedGguf(
          output_, from_gguf ? "give the folder another name" : "--format gguf makes that file");
    }
    GgufReading reading;
    reading.codes = !to_folder;
    if (!dequantize_.empty()) reading.dense = DenseType();
    if (from_gguf) reading.pre = gguf_.pre;
    const ModelSource source = ModelSource::Open(artifact_, reading);
    NoteLeftovers(output_, console);
    ThreadPool pool(common().threads > 0 ? common().threads : AvailableCpus());
    ProgressLine line(console.shows_progress());
    const ConvertProgress progress = [&](const std::string& phase, int64_t done, int64_t total,
                                         const std::string& layer) {
      ThrowIfInterrupted();
      line.Update({phase, done, total, 0, layer});
    };
    const ConvertReport report =
        to_folder ? WriteDenseFolder(source, output_, force_, pool, progress)
        : gguf    ? WriteGguf(source, gguf_, output_, force_, pool, progress)
        : dequantize_.empty()
            ? ConvertArtifact(source, format_, output_, force_, pool, progress)
            : DequantizeArtifact(source, DenseType(), output_, force_, pool, progress);
    line.Clear();
    console.WriteReport(report);
    return 0;
  }

 private:
  void AddGgufFlags(const FlagSet& command) {
    gguf_flags_ = {
        command
            .Add("--gguf-type", gguf_.type,
                 "gguf of a dense model: type of its linear layers (f16)")
            .OneOf(GgufTypeNames()),
        command.Add("--embedding-type", gguf_.embedding_type, "gguf: type of embedding and head")
            .OneOf(GgufEmbeddingTypeNames()),
        command
            .Add("--imatrix", gguf_.imatrix,
                 "gguf of a dense model: importance of inputs, a file of llama.cpp")
            .ValueName("FILE"),
        command
            .Add("--gguf-pre", gguf_.pre,
                 "gguf, also as MODEL: llama.cpp's name for the pre-tokenizer, if it\n"
                 "is not found")
            .ValueName("NAME")};
  }

  DType DenseType() const {
    if (dequantize_ == "f32") return DType::kF32;
    return dequantize_ == "bf16" ? DType::kBF16 : DType::kF16;
  }

  std::string artifact_;
  std::string output_;
  bool force_ = false;
  std::string format_;
  std::string dequantize_;
  GgufOptions gguf_;
  std::vector<Flag> gguf_flags_;
};

}  // namespace

std::unique_ptr<Command> MakeConvertCommand() { return std::make_unique<ConvertCommand>(); }

}  // namespace quantmill
