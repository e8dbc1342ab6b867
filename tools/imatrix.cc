// quantmill imatrix: how large the inputs of each layer are, for llama.cpp's quantizers.
#include "formats/gguf/imatrix.h"

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "formats/single_file_output.h"
#include "quant/calib/token_stream.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/importance.h"
#include "quant/report/json.h"
#include "tools/command.h"
#include "tools/flag_set.h"
#include "tools/progress.h"
#include "tools/session.h"
#include "tools/signals.h"

namespace quantmill {
namespace {

// The older format begins with the number of its entries, and nothing else tells it: --force
// replaces files of a model of as many tensors.
std::string LegacyStart(const ModelSource& source) {
  const auto entries = static_cast<int32_t>(CountImportanceEntries(source));
  std::string start(sizeof(entries), '\0');
  std::memcpy(start.data(), &entries, sizeof(entries));
  return start;
}

class ImatrixCommand : public Command {
 public:
  FlagSet Register(CLI::App& app) override {
    FlagSet command(app, "imatrix",
                    "how large the inputs of each layer are, for llama.cpp's quantizers");
    command.Add("MODEL", model_, "dense checkpoint: folder, or cached hub id")
        .Required()
        .ValueName("");
    command.Add("-o,--output", output_, "file to make").Required().ValueName("OUT");
    command.AddSwitch("--force", force_, "replace OUT if it is there");
    command.AddSwitch("--legacy", legacy_, "the format of llama.cpp before August 2025");
    command.Add("--calib", calib_, "text, .json or .jsonl; default: the bundled text")
        .ValueName("FILE");
    command.Add("--samples", samples_, "windows; default: 128").IntegerIn(1, 1'000'000);
    command.Add("--sequence-length", length_, "tokens of a window; default: 512")
        .IntegerIn(2, 1'000'000);
    AddCommonFlags(command);
    command.Footer(
        "The same numbers serve llama-quantize --imatrix and convert --imatrix.\n\n"
        "Example:\n"
        "  quantmill imatrix calib_data/sample_model -o sample.imatrix.gguf");
    return command;
  }

  int Run(Console& console) override {
    Session session(common());
    const ModelSource source = ModelSource::Open(model_);
    SingleFileOutput file(output_, force_, legacy_ ? LegacyStart(source) : "GGUF");
    const std::vector<int32_t> ids = ReadCalibrationIds(calib_, source);
    const TokenWindows windows = CutCalibrationWindows(ids, samples_, length_, std::nullopt);
    ProgressLine line(console.shows_progress());
    const BackendInfo backend = session.backend().Info();
    const Compute compute =
        ForManyTokens(backend.compute_bf16 ? Compute::kBF16 : Compute::kF32, backend);
    ImportanceMatrix matrix =
        MeasureImportance(session.backend(), session.exec(), source, windows, compute,
                          [&](int64_t done, int64_t total, const std::string& layer) {
                            ThrowIfInterrupted();
                            line.Update({"measuring", done, total, 0, layer});
                          });
    line.Clear();
    matrix.datasets = {calib_.empty() ? "bundled" : calib_};
    if (legacy_) {
      WriteLegacyImportanceMatrix(file.path(), matrix);
    } else {
      WriteImportanceMatrix(file.path(), matrix);
    }
    file.Commit();
    console.Note(output_ + ": " + std::to_string(matrix.entries.size()) + " tensors, " +
                 std::to_string(windows.tokens()) + " tokens\n");
    if (console.json()) {
      console.Write(JsonText(
          {{"output", output_}, {"layers", matrix.entries.size()}, {"tokens", windows.tokens()}}));
    }
    return 0;
  }

 private:
  std::string model_;
  std::string output_;
  bool force_ = false;
  bool legacy_ = false;
  std::string calib_;
  int64_t samples_ = 128;
  int64_t length_ = 512;
};

}  // namespace

std::unique_ptr<Command> MakeImatrixCommand() { return std::make_unique<ImatrixCommand>(); }

}  // namespace quantmill
