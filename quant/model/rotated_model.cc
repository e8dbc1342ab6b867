#include "quant/model/rotated_model.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "formats/checkpoint_writer.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr int64_t kPanelRows = 256;   // read, rotated and written together
constexpr int64_t kTileColumns = 16;  // of Rt W, at once

// Threads' own memory for Hadamard::Apply.
struct Scratch {
  std::vector<double> vectors;
  std::vector<double> mixing;
};

// x := x diag(gain) R for each row of an F32 matrix, R on each size() columns. gain: empty, or one
// value a column.
void RotateRowVectors(const Hadamard* hadamard, const Tensor& gain, Matrix panel, ThreadPool& pool,
                      std::vector<Scratch>& scratch) {
  pool.ParallelFor(panel.rows, [&](int64_t r, int thread) {
    auto& [values, mixing] = scratch[static_cast<size_t>(thread)];
    auto* row = panel.Row<float>(r);
    values.assign(row, row + panel.cols);
    if (!gain.empty()) {
      for (int64_t c = 0; c < panel.cols; ++c) {
        values[static_cast<size_t>(c)] *= gain.Row<float>(0)[c];
      }
    }
    if (hadamard != nullptr) {
      for (int64_t c = 0; c < panel.cols; c += hadamard->size()) {
        hadamard->Apply(values.data() + c, 1, mixing);
      }
    }
    for (int64_t c = 0; c < panel.cols; ++c) {
      row[c] = static_cast<float>(values[static_cast<size_t>(c)]);
    }
  });
}

// Each column y of each size() rows that lie in `runs`: y := Rt y. The panel is rows `begin` and
// following of a tensor.
void RotateColumnVectors(const Hadamard& hadamard, const RowRuns& runs, int64_t begin, Matrix panel,
                         ThreadPool& pool, std::vector<Scratch>& scratch) {
  const int64_t n = hadamard.size();
  const int64_t tiles = (panel.cols + kTileColumns - 1) / kTileColumns;
  pool.ParallelFor(panel.rows / n * tiles, [&](int64_t task, int thread) {
    auto& [values, mixing] = scratch[static_cast<size_t>(thread)];
    const int64_t first_row = task / tiles * n;
    if (!runs.Contains(begin + first_row)) return;
    const int64_t first_column = task % tiles * kTileColumns;
    const int64_t lanes = std::min(kTileColumns, panel.cols - first_column);
    values.resize(static_cast<size_t>(n * lanes));
    for (int64_t i = 0; i < n; ++i) {
      const float* from = panel.Row<float>(first_row + i) + first_column;
      std::copy(from, from + lanes, values.data() + i * lanes);
    }
    hadamard.Apply(values.data(), lanes, mixing);
    for (int64_t i = 0; i < n; ++i) {
      auto* to = panel.Row<float>(first_row + i) + first_column;
      for (int64_t l = 0; l < lanes; ++l) {
        to[l] = static_cast<float>(values[static_cast<size_t>(i * lanes + l)]);
      }
    }
  });
}

class RotatedWriter {
 public:
  RotatedWriter(const ModelSource& source, const Rotation& rotation, OutputFolder& folder,
                ThreadPool& pool)
      : source_(source),
        checkpoint_(source.checkpoint()),
        rotation_(rotation),
        folder_(folder),
        pool_(pool),
        declarations_(Declarations()),
        writer_(folder, declarations_),
        scratch_(static_cast<size_t>(pool.threads())) {}

  void WriteTensors(const RotatedModel::Progress& progress);
  void WriteFiles();

 private:
  std::vector<TensorDeclaration> Declarations() const;
  void WriteOnes(const TensorDeclaration& tensor);
  void WriteRotated(const TensorDeclaration& tensor, const RotatedTensor& change);

  const ModelSource& source_;
  const Checkpoint& checkpoint_;
  const Rotation& rotation_;
  OutputFolder& folder_;
  ThreadPool& pool_;
  std::vector<TensorDeclaration> declarations_;
  CheckpointWriter writer_;
  std::vector<Scratch> scratch_;
};

// The original's tensors, and the head where it was tied.
std::vector<TensorDeclaration> RotatedWriter::Declarations() const {
  const std::string head = source_.spec().lm_head.name + ".weight";
  std::vector<TensorDeclaration> declarations;
  for (const std::string& name : checkpoint_.names()) {
    if (name == head) continue;
    const TensorInfo& info = checkpoint_.Info(name);
    declarations.push_back({name, info.dtype, info.shape});
  }
  const TensorInfo& info = checkpoint_.Info(source_.WeightName(source_.spec().lm_head));
  declarations.push_back({head, info.dtype, info.shape});
  return declarations;
}

void RotatedWriter::WriteTensors(const RotatedModel::Progress& progress) {
  const auto total = std::ssize(declarations_);
  for (int64_t done = 0; done < total; ++done) {
    const TensorDeclaration& tensor = declarations_[static_cast<size_t>(done)];
    if (progress) progress(done, total, tensor.name);
    const auto change = rotation_.tensors().find(tensor.name);
    if (change == rotation_.tensors().end()) {
      writer_.Write(tensor.name, checkpoint_.Bytes(tensor.name));
      checkpoint_.Release(tensor.name);
    } else if (change->second.ones) {
      WriteOnes(tensor);
    } else {
      WriteRotated(tensor, change->second);
    }
  }
  writer_.Finish();
}

void RotatedWriter::WriteOnes(const TensorDeclaration& tensor) {
  const ConstMatrix gain = checkpoint_.View(tensor.name);
  const std::vector<float> ones(static_cast<size_t>(gain.cols), 1.0f);
  writer_.Write(tensor.name, StoredAs(gain.dtype, ones));
}

void RotatedWriter::WriteRotated(const TensorDeclaration& tensor, const RotatedTensor& change) {
  ConstMatrix from = checkpoint_.View(change.from);
  CheckFinite(from, checkpoint_.Location(change.from));
  if (checkpoint_.Info(change.from).shape.size() == 1) {  // a bias: a column
    from = {from.data, from.dtype, from.cols, 1, 1};
  }
  const Tensor gain = change.gain.empty() ? Tensor() : source_.ReadVector(change.gain);
  int64_t panel_rows = kPanelRows;
  if (change.rows != nullptr) {
    const int64_t size = change.rows->size();
    panel_rows = std::max<int64_t>(1, kPanelRows / size) * size;
  }
  for (int64_t row = 0; row < from.rows; row += panel_rows) {
    const int64_t rows = std::min(panel_rows, from.rows - row);
    const Tensor panel = HostTensor(DType::kF32, rows, from.cols);
    for (int64_t r = 0; r < rows; ++r) WidenRow(from, row + r, panel.Row<float>(r));
    RotateRowVectors(change.columns, gain, panel, pool_, scratch_);
    if (change.rows != nullptr) {
      RotateColumnVectors(*change.rows, change.row_runs, row, panel, pool_, scratch_);
    }
    const std::vector<std::byte> stored =
        StoredAs(from.dtype, {panel.Row<float>(0), static_cast<size_t>(rows * from.cols)});
    CheckFinite({stored.data(), from.dtype, rows, from.cols, from.cols},
                checkpoint_.Location(change.from) + ", rotated");
    writer_.WriteAt(tensor.name, static_cast<uint64_t>(row * from.cols * SizeOf(from.dtype)),
                    stored);
  }
  checkpoint_.Release(change.from);
}

void RotatedWriter::WriteFiles() {
  nlohmann::json config = checkpoint_.config();
  config["tie_word_embeddings"] = false;
  folder_.WriteText("config.json", config.dump(2) + "\n");
  for (const std::string& name : checkpoint_.other_files().copied) {
    folder_.WriteText(name, *checkpoint_.ReadFile(name));
  }
}

}  // namespace

RotatedModel::RotatedModel(const ModelSource& source, const std::filesystem::path& beside,
                           ThreadPool& pool, const Progress& progress)
    : rotation_(source), folder_(beside.string() + ".rotated", false) {
  Check(source.artifact() == nullptr, "RotatedModel: a quantized source");
  RotatedWriter writer(source, rotation_, folder_, pool);
  writer.WriteTensors(progress);
  writer.WriteFiles();
  model_ = ModelSource::OpenStandIn(folder_.path().string(), source, rotation_.Json());
}

}  // namespace quantmill
