#include "quant/pipeline/convert_gguf.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "formats/gguf.h"
#include "formats/gguf/codec.h"
#include "formats/gguf/imatrix.h"
#include "formats/gguf/repack.h"
#include "formats/gguf/vocabulary.h"
#include "formats/single_file_output.h"
#include "kernels/core/error.h"
#include "quant/model/gguf_layout.h"
#include "quant/pipeline/artifact_output.h"
#include "quant/pipeline/gguf_types.h"
#include "quant/pipeline/stopwatch.h"

namespace quantmill {
namespace {

constexpr int64_t kRowsPerTask = 16;
constexpr int64_t kBatchBytes = int64_t{16} << 20;  // of encoded rows, written together

// One matrix of the source, opened: rows in the order of the file.
class MatrixRows {
 public:
  MatrixRows(const ModelSource& source, const GgufMatrix& matrix)
      : source_(source), matrix_(matrix) {
    if (matrix.role == GgufRole::kEmbedding) {
      dense_ = source.checkpoint().View(matrix.linear.name);
      CheckFinite(dense_, source.checkpoint().Location(matrix.linear.name));
    } else if (source.SchemeOf(matrix.linear)) {
      quantized_ = source.ReadQuantized(matrix.linear);
    } else {
      Check(!matrix.linear.transposed, "convert: no family of gguf has transposed weights");
      dense_ = source.DenseWeight(matrix.linear).view();  // of the mapped file
    }
  }
  ~MatrixRows() {
    if (matrix_.role == GgufRole::kEmbedding) {
      source_.checkpoint().Release(matrix_.linear.name);
    } else {
      source_.Release(matrix_.linear);
    }
  }
  MatrixRows(const MatrixRows&) = delete;
  MatrixRows& operator=(const MatrixRows&) = delete;

  bool quantized() const { return quantized_.has_value(); }

  void Encode(int64_t row, GgmlType type, std::span<const float> importance,
              std::span<std::byte> bytes) const {
    if (quantized_) return RepackRow(*quantized_, Of(row), type, matrix_.linear.name, bytes);
    std::vector<float> values(static_cast<size_t>(matrix_.linear.in));
    WidenRow(dense_, Of(row), values.data());
    EncodeRow(type, values, importance, bytes);
  }

  void Read(int64_t row, float* to) const {
    if (quantized_) return DequantizeRow(*quantized_, Of(row), to);
    WidenRow(dense_, Of(row), to);
  }

 private:
  int64_t Of(int64_t row) const { return RopeRow(row, matrix_.linear.out, matrix_.heads); }

  const ModelSource& source_;
  const GgufMatrix& matrix_;
  ConstMatrix dense_;
  std::optional<QuantizedLinear> quantized_;
};

class GgufConversion {
 public:
  GgufConversion(const ModelSource& source, const GgufOptions& options, ThreadPool& pool,
                 const ConvertProgress& progress)
      : source_(source), options_(options), pool_(pool), progress_(progress) {
    CheckSource();
    const ConfigReader config(source.checkpoint().config(),
                              (source.checkpoint().folder() / "config.json").string());
    layout_ = DescribeGguf(source.spec(), config);
    types_ = source.artifact() != nullptr
                 ? KeepGgufTypes(layout_, source, options.embedding_type)
                 : ChooseGgufTypes(layout_, options.type.empty() ? "f16" : options.type,
                                   options.embedding_type);
    if (!options.imatrix.empty()) ReadImportance();
    DescribeFile();
  }

  const std::string& label() const { return types_.label; }
  int64_t layers() const { return std::ssize(layout_.matrices); }

  void Write(const std::filesystem::path& path);
  void Prove(const std::filesystem::path& path) const;
  uint64_t bytes() const {
    uint64_t total = 0;
    for (const GgufDeclaration& tensor : tensors_) total += tensor.bytes();
    return total;
  }

 private:
  void CheckSource() const;
  void ReadImportance();
  void DescribeFile();
  std::vector<float> VectorOf(const GgufVector& vector) const;
  std::vector<float> ImportanceOf(const GgufMatrix& matrix) const;
  void WriteMatrix(size_t index, GgufWriter& writer) const;
  void ProveMatrix(size_t index, const GgufFile& file) const;
  [[noreturn]] static void Differs(const std::string& tensor, const std::string& what) {
    throw Error(ErrorCode::kVerification, tensor,
                what + "; nothing was kept. This is a bug of quantmill or of the disk");
  }

  const ModelSource& source_;
  const GgufOptions& options_;
  ThreadPool& pool_;
  const ConvertProgress& progress_;
  GgufLayout layout_;
  GgufTypes types_;
  ImportanceMatrix importance_;
  std::vector<GgufEntry> metadata_;
  std::vector<GgufDeclaration> tensors_;
};

void GgufConversion::CheckSource() const {
  if (source_.artifact() != nullptr && !(options_.type.empty() && options_.imatrix.empty())) {
    throw Error(ErrorCode::kUsage, options_.type.empty() ? "--imatrix" : "--gguf-type",
                source_.path() +
                    " is quantized already and is repacked as it is; give its dense "
                    "original to quantize that");
  }
  if (source_.kv_scheme().type != KvScheme::Type::kNone) {
    throw Error(ErrorCode::kUsage, source_.path(),
                "gguf has no place for the scales of its FP8 cache");
  }
  for (const std::string& name : source_.unknown_tensors()) {
    if (name.ends_with("rotary_emb.inv_freq")) continue;  // old checkpoints: follows from config
    throw Error(ErrorCode::kUsage, source_.checkpoint().Location(name),
                "gguf has no place for this tensor, which belongs to no layer that is known");
  }
}

void GgufConversion::ReadImportance() {
  importance_ = ReadImportanceMatrix(options_.imatrix);
  for (const GgufMatrix& matrix : layout_.matrices) {
    const auto entry = importance_.entries.find(matrix.name);
    if (entry == importance_.entries.end()) {
      if (matrix.layer < 0) continue;  // llama-imatrix leaves embedding and head out
      throw Error(ErrorCode::kBadInput, options_.imatrix,
                  "has no entry " + matrix.name + ": it was made of another model");
    }
    if (entry->second.matrices() == 1 &&
        entry->second.cols() == static_cast<size_t>(matrix.linear.in)) {
      continue;
    }
    throw Error(ErrorCode::kBadInput, options_.imatrix,
                "entry " + matrix.name + " does not have the model's " +
                    std::to_string(matrix.linear.in) + " inputs");
  }
}

void GgufConversion::DescribeFile() {
  const std::filesystem::path& folder = source_.checkpoint().folder();
  metadata_ = {{"general.architecture", layout_.architecture},
               {"general.type", std::string("model")},
               {"general.file_type", types_.file_type}};
  if (std::ranges::any_of(types_.types,
                          [](GgmlType type) { return InfoOf(type).block_elements > 1; })) {
    metadata_.push_back({"general.quantization_version", uint32_t{2}});
  }
  for (const GgufEntry& entry : layout_.metadata) metadata_.push_back(entry);
  for (GgufEntry& entry : DescribeVocabulary(folder, source_.spec().vocab, options_.pre)) {
    metadata_.push_back(std::move(entry));
  }
  for (size_t i = 0; i < layout_.matrices.size(); ++i) {
    const GgufMatrix& matrix = layout_.matrices[i];
    tensors_.push_back({matrix.name, types_.types[i], {matrix.linear.out, matrix.linear.in}});
  }
  for (const GgufVector& vector : layout_.vectors) {
    const auto size = std::ssize(VectorOf(vector));
    tensors_.push_back({vector.name, GgmlType::kF32, {size}});
  }
  if (!layout_.rope_divisors.empty()) {
    tensors_.push_back({"rope_freqs.weight", GgmlType::kF32, {std::ssize(layout_.rope_divisors)}});
  }
}

std::vector<float> GgufConversion::VectorOf(const GgufVector& vector) const {
  const Tensor values = source_.ReadVector(vector.source);
  std::vector<float> result(static_cast<size_t>(values.cols()));
  for (int64_t i = 0; i < values.cols(); ++i) {
    result[static_cast<size_t>(i)] = values.Row<float>(0)[RopeRow(i, values.cols(), vector.heads)];
  }
  return result;
}

std::vector<float> GgufConversion::ImportanceOf(const GgufMatrix& matrix) const {
  const auto entry = importance_.entries.find(matrix.name);
  if (entry == importance_.entries.end()) return {};
  return entry->second.Means();
}

void GgufConversion::WriteMatrix(size_t index, GgufWriter& writer) const {
  const GgufMatrix& matrix = layout_.matrices[index];
  const GgmlType type = types_.types[index];
  const MatrixRows rows(source_, matrix);
  const std::vector<float> importance = ImportanceOf(matrix);
  const auto row_bytes = static_cast<int64_t>(*RowBytes(type, matrix.linear.in));
  const int64_t batch = std::max(kRowsPerTask, kBatchBytes / row_bytes);
  std::vector<std::byte> bytes;
  for (int64_t begin = 0; begin < matrix.linear.out; begin += batch) {
    const int64_t count = std::min(batch, matrix.linear.out - begin);
    bytes.resize(static_cast<size_t>(count * row_bytes));
    pool_.ParallelFor((count + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task, int) {
      const int64_t end = std::min(count, (task + 1) * kRowsPerTask);
      for (int64_t row = task * kRowsPerTask; row < end; ++row) {
        rows.Encode(begin + row, type, importance,
                    std::span(bytes).subspan(static_cast<size_t>(row * row_bytes),
                                             static_cast<size_t>(row_bytes)));
      }
    });
    writer.WriteAt(matrix.name, static_cast<uint64_t>(begin * row_bytes), bytes);
  }
}

void GgufConversion::Write(const std::filesystem::path& path) {
  GgufWriter writer(path, metadata_, tensors_);
  for (size_t i = 0; i < layout_.matrices.size(); ++i) {
    progress_("converting", static_cast<int64_t>(i), layers(), layout_.matrices[i].name);
    WriteMatrix(i, writer);
  }
  for (const GgufVector& vector : layout_.vectors) {
    const std::vector<float> values = VectorOf(vector);
    writer.Write(vector.name, std::as_bytes(std::span(values)));
  }
  if (!layout_.rope_divisors.empty()) {
    writer.Write("rope_freqs.weight", std::as_bytes(std::span(layout_.rope_divisors)));
  }
  writer.Finish();
}

// Repacked codes and what keeps its type: the same values. Other rows: near enough to be the same
// matrix in the same order, which a bound on the error of the whole tells.
void GgufConversion::ProveMatrix(size_t index, const GgufFile& file) const {
  const GgufMatrix& matrix = layout_.matrices[index];
  const GgufTensor& tensor = *file.Find(matrix.name);
  const MatrixRows rows(source_, matrix);
  const auto in = static_cast<size_t>(matrix.linear.in);
  const auto row_bytes = static_cast<size_t>(*RowBytes(tensor.type, matrix.linear.in));
  std::vector<double> errors(static_cast<size_t>(matrix.linear.out));
  std::vector<double> squares(errors.size());
  pool_.ParallelFor(matrix.linear.out, [&](int64_t row, int) {
    std::vector<float> want(in);
    std::vector<float> got(in);
    rows.Read(row, want.data());
    DecodeRow(tensor.type,
              file.Bytes(tensor).subspan(static_cast<size_t>(row) * row_bytes, row_bytes), got);
    if (rows.quantized() && got != want) {
      Differs(matrix.name, "output " + std::to_string(row) + " decodes to other values than " +
                               matrix.linear.name);
    }
    for (size_t i = 0; i < in; ++i) {
      const double error = static_cast<double>(got[i]) - static_cast<double>(want[i]);
      errors[static_cast<size_t>(row)] += error * error;
      squares[static_cast<size_t>(row)] += static_cast<double>(want[i]) * want[i];
    }
  });
  double error = 0;
  double square = 0;
  for (size_t row = 0; row < errors.size(); ++row) {
    error += errors[row];
    square += squares[row];
  }
  if (!std::isfinite(error)) {
    throw Error(ErrorCode::kBadInput, matrix.linear.name,
                "has values that " + std::string(NameOf(tensor.type)) + " does not reach");
  }
  constexpr double kLargestError = 0.1;  // types of 4 bits are near 0.01
  if (error > kLargestError * square) {
    Differs(matrix.name, "decodes to values far from those of " + matrix.linear.name);
  }
}

void GgufConversion::Prove(const std::filesystem::path& path) const {
  const GgufFile file = GgufFile::Open(path);
  const auto same = [](const GgufEntry& one, const GgufEntry& two) {
    return one.key == two.key && one.value == two.value;
  };
  if (!std::ranges::equal(file.metadata().entries(), metadata_, same)) {
    Differs(path.string(), "holds other metadata than was written");
  }
  for (const GgufDeclaration& declared : tensors_) {
    const GgufTensor* tensor = file.Find(declared.name);
    if (tensor == nullptr || tensor->type != declared.type || tensor->shape != declared.shape) {
      Differs(declared.name, "is not the tensor that was written");
    }
  }
  for (size_t i = 0; i < layout_.matrices.size(); ++i) {
    progress_("comparing", static_cast<int64_t>(i), layers(), layout_.matrices[i].name);
    ProveMatrix(i, file);
  }
  for (const GgufVector& vector : layout_.vectors) {
    const std::vector<float> want = VectorOf(vector);
    std::vector<float> got(want.size());
    DecodeRow(GgmlType::kF32, file.Bytes(*file.Find(vector.name)), got);
    if (got != want) Differs(vector.name, "decodes to other values than " + vector.source);
  }
  if (!layout_.rope_divisors.empty()) {
    std::vector<float> got(layout_.rope_divisors.size());
    DecodeRow(GgmlType::kF32, file.Bytes(*file.Find("rope_freqs.weight")), got);
    if (got != layout_.rope_divisors) Differs("rope_freqs.weight", "decodes to other values");
  }
}

}  // namespace

ConvertReport WriteGguf(const ModelSource& source, const GgufOptions& options,
                        const std::string& output, bool force, ThreadPool& pool,
                        const ConvertProgress& progress) {
  CheckOutputPath(source, output);
  ConvertReport report;
  report.input = source.path();
  report.output = output;
  report.from = source.artifact() != nullptr ? std::string(source.artifact()->format())
                                             : std::string(NameOf(source.dense_dtype()));
  report.input_bytes = source.checkpoint().total_bytes();
  const Stopwatch watch(report.seconds);
  SingleFileOutput file(output, force, "GGUF");
  GgufConversion conversion(source, options, pool, progress);
  file.RequireSpace(conversion.bytes());
  conversion.Write(file.path());
  conversion.Prove(file.path());
  file.Commit();
  report.to = "gguf " + conversion.label();
  report.layers = conversion.layers();
  report.output_bytes = std::filesystem::file_size(output);
  return report;
}

}  // namespace quantmill
