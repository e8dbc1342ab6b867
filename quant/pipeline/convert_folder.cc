#include "quant/pipeline/convert_folder.h"

#include <algorithm>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "formats/checkpoint_writer.h"
#include "formats/output_folder.h"
#include "kernels/core/error.h"
#include "quant/pipeline/artifact_output.h"
#include "quant/pipeline/stopwatch.h"

namespace quantmill {
namespace {

constexpr int64_t kBatchBytes = int64_t{16} << 20;  // decoded together, then written
constexpr int64_t kBytesPerTask = int64_t{64} << 10;

// Decodes a tensor piece by piece; visit(offset in the tensor, bytes).
void ForEachBatch(const Checkpoint& checkpoint, const std::string& name, ThreadPool& pool,
                  const std::function<void(uint64_t, std::span<const std::byte>)>& visit) {
  const TensorInfo& info = checkpoint.Info(name);
  const int64_t rows = info.shape.size() == 2 ? info.shape[0] : 1;
  const int64_t row_bytes = static_cast<int64_t>(info.bytes()) / rows;
  const int64_t batch = std::max<int64_t>(1, kBatchBytes / row_bytes);
  const int64_t rows_per_task = std::max<int64_t>(1, kBytesPerTask / row_bytes);
  std::vector<std::byte> bytes;
  for (int64_t begin = 0; begin < rows; begin += batch) {
    const int64_t count = std::min(batch, rows - begin);
    bytes.resize(static_cast<size_t>(count * row_bytes));
    pool.ParallelFor((count + rows_per_task - 1) / rows_per_task, [&](int64_t task, int) {
      const int64_t first = task * rows_per_task;
      const int64_t some = std::min(rows_per_task, count - first);
      checkpoint.ReadRows(name, begin + first, some,
                          std::span(bytes).subspan(static_cast<size_t>(first * row_bytes),
                                                   static_cast<size_t>(some * row_bytes)));
    });
    visit(static_cast<uint64_t>(begin * row_bytes), bytes);
  }
  checkpoint.Release(name);
}

class DenseFolder {
 public:
  DenseFolder(const Checkpoint& checkpoint, OutputFolder& folder, ThreadPool& pool,
              const ConvertProgress& progress)
      : checkpoint_(checkpoint), folder_(folder), pool_(pool), progress_(progress) {}

  void WriteFiles() const {
    folder_.WriteText("config.json", checkpoint_.config().dump(2) + "\n");
    checkpoint_.ReadFile("tokenizer.json");  // throws the reason why there is none
    for (const std::string& name : checkpoint_.other_files().copied) {
      folder_.WriteText(name, *checkpoint_.ReadFile(name));
    }
  }

  void WriteTensors() const {
    std::vector<TensorDeclaration> declarations;
    for (const std::string& name : checkpoint_.names()) {
      const TensorInfo& info = checkpoint_.Info(name);
      declarations.push_back({name, info.dtype, info.shape});
    }
    CheckpointWriter writer(folder_, std::move(declarations));
    ForEachTensor("decoding",
                  [&](const std::string& name, uint64_t at, std::span<const std::byte> bytes) {
                    writer.WriteAt(name, at, bytes);
                  });
    writer.Finish();
  }

  void Prove() const {
    const Checkpoint written = Checkpoint::Open(folder_.path().string());
    ForEachTensor(
        "comparing", [&](const std::string& name, uint64_t at, std::span<const std::byte> bytes) {
          const auto stored = written.Bytes(name).subspan(at, bytes.size());
          if (std::ranges::equal(stored, bytes)) {
            written.Release(name);
            return;
          }
          throw Error(ErrorCode::kVerification, name,
                      "holds other values than the source; nothing was kept. This is a bug of "
                      "quantmill or of the disk");
        });
  }

 private:
  template <typename Visit>
  void ForEachTensor(const std::string& phase, const Visit& visit) const {
    const std::vector<std::string>& names = checkpoint_.names();
    for (size_t i = 0; i < names.size(); ++i) {
      progress_(phase, static_cast<int64_t>(i), std::ssize(names), names[i]);
      ForEachBatch(
          checkpoint_, names[i], pool_,
          [&](uint64_t at, std::span<const std::byte> bytes) { visit(names[i], at, bytes); });
    }
  }

  const Checkpoint& checkpoint_;
  OutputFolder& folder_;
  ThreadPool& pool_;
  const ConvertProgress& progress_;
};

}  // namespace

ConvertReport WriteDenseFolder(const ModelSource& source, const std::string& output, bool force,
                               ThreadPool& pool, const ConvertProgress& progress) {
  Check(source.checkpoint().is_image() && source.artifact() == nullptr,
        "WriteDenseFolder: a GGUF file opened without codes");
  CheckOutputPath(source, output);
  ConvertReport report;
  report.input = source.path();
  report.output = output;
  report.from = StoredTypes(source.checkpoint());
  report.to = "dense " + std::string(NameOf(source.dense_dtype()));
  for (const std::filesystem::path& file : source.checkpoint().weight_files()) {
    report.input_bytes += std::filesystem::file_size(file);
  }
  report.layers = std::ssize(source.spec().Linears()) + (source.spec().tied ? 0 : 1);
  {
    const Stopwatch watch(report.seconds);
    OutputFolder folder(output, force);
    const DenseFolder dense(source.checkpoint(), folder, pool, progress);
    dense.WriteFiles();
    dense.WriteTensors();
    dense.Prove();
    folder.Commit();
  }
  report.output_bytes = Checkpoint::Open(output).total_bytes();
  return report;
}

}  // namespace quantmill
