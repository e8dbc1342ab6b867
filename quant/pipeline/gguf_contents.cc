#include "quant/pipeline/gguf_contents.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <utility>

#include "formats/gguf/codec.h"
#include "formats/gguf/repack.h"
#include "formats/gguf/vocabulary.h"
#include "kernels/core/error.h"

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
      weight_.emplace(source.DenseWeight(matrix.linear));
      dense_ = weight_->view();
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
  int64_t Of(int64_t row) const { return matrix_.order.SourceOf(row, matrix_.linear.out); }

  const ModelSource& source_;
  const GgufMatrix& matrix_;
  std::optional<DenseMatrix> weight_;
  ConstMatrix dense_;  // of weight_, or the embedding
  std::optional<QuantizedLinear> quantized_;
};

// Old checkpoints hold what follows from the configuration: frequencies, causal masks.
bool IsConstant(const std::string& name) {
  constexpr std::array<std::string_view, 5> kEnds = {"rotary_emb.inv_freq", ".attn.bias",
                                                     ".attn.masked_bias", ".attention.bias",
                                                     ".attention.masked_bias"};
  return std::ranges::any_of(kEnds, [&](std::string_view end) { return name.ends_with(end); });
}

[[noreturn]] void Differs(const std::string& tensor, const std::string& what) {
  throw Error(ErrorCode::kVerification, tensor,
              what + "; nothing was kept. This is a bug of quantmill or of the disk");
}

}  // namespace

GgufContents::GgufContents(const ModelSource& source, GgufLayout layout, GgufTypes types,
                           const std::string& pre, ThreadPool& pool)
    : source_(source), layout_(std::move(layout)), types_(std::move(types)), pool_(pool) {
  CheckSource();
  DescribeFile(pre);
}

uint64_t GgufContents::bytes() const {
  uint64_t total = 0;
  for (const GgufDeclaration& tensor : tensors_) total += tensor.bytes();
  return total;
}

void GgufContents::CheckSource() const {
  if (source_.kv_scheme().type != KvScheme::Type::kNone) {
    throw Error(ErrorCode::kUsage, source_.path(),
                "gguf has no place for the scales of its FP8 cache");
  }
  for (const std::string& name : source_.unknown_tensors()) {
    if (IsConstant(name)) continue;
    throw Error(ErrorCode::kUsage, source_.checkpoint().Location(name),
                "gguf has no place for this tensor, which belongs to no layer that is known");
  }
}

void GgufContents::DescribeFile(const std::string& pre) {
  metadata_ = {{"general.architecture", layout_.architecture},
               {"general.type", std::string("model")},
               {"general.file_type", types_.file_type}};
  if (std::ranges::any_of(types_.types,
                          [](GgmlType type) { return InfoOf(type).block_elements > 1; })) {
    metadata_.push_back({"general.quantization_version", uint32_t{2}});
  }
  for (const GgufEntry& entry : layout_.metadata) metadata_.push_back(entry);
  for (GgufEntry& entry : DescribeVocabulary(source_.checkpoint(), source_.spec().vocab, pre)) {
    metadata_.push_back(std::move(entry));
  }
  for (size_t i = 0; i < layout_.matrices.size(); ++i) {
    const GgufMatrix& matrix = layout_.matrices[i];
    if (matrix.expert > 0) continue;  // in the tensor of the first
    tensors_.push_back({matrix.name, types_.types[i], matrix.shape()});
  }
  for (const GgufFloats& floats : layout_.floats) {
    tensors_.push_back({floats.name, GgmlType::kF32, floats.stored_shape()});
  }
  for (const GgufTable& table : layout_.tables) {
    tensors_.push_back({table.name, GgmlType::kF32, {std::ssize(table.values)}});
  }
}

std::vector<float> GgufContents::FloatsOf(const GgufFloats& floats) const {
  const ConstMatrix stored = source_.checkpoint().View(floats.source);
  CheckFinite(stored, source_.checkpoint().Location(floats.source));
  std::vector<float> values(static_cast<size_t>(stored.rows * stored.cols));
  for (int64_t row = 0; row < stored.rows; ++row) {
    WidenRow(stored, row, values.data() + row * stored.cols);
  }
  source_.checkpoint().Release(floats.source);
  for (float& value : values) value += floats.added;
  if (!floats.order.moves()) return values;
  std::vector<float> moved(values.size());
  const auto size = std::ssize(values);
  for (int64_t i = 0; i < size; ++i) {
    moved[static_cast<size_t>(i)] = values[static_cast<size_t>(floats.order.SourceOf(i, size))];
  }
  return moved;
}

uint64_t GgufContents::RowBytesOf(size_t index) const {
  return *RowBytes(types_.types[index], layout_.matrices[index].linear.in);
}

void GgufContents::WriteRows(size_t index, std::span<const std::byte> rows,
                             GgufWriter& writer) const {
  const GgufMatrix& matrix = layout_.matrices[index];
  Check(rows.size() == static_cast<uint64_t>(matrix.linear.out) * RowBytesOf(index),
        "WriteRows: not all rows of a matrix");
  writer.WriteAt(matrix.name, static_cast<uint64_t>(matrix.first_row()) * RowBytesOf(index), rows);
}

std::span<const std::byte> GgufContents::RowsOf(size_t index, const GgufFile& file) const {
  const GgufMatrix& matrix = layout_.matrices[index];
  const uint64_t row_bytes = RowBytesOf(index);
  return file.Bytes(*file.Find(matrix.name))
      .subspan(static_cast<uint64_t>(matrix.first_row()) * row_bytes,
               static_cast<uint64_t>(matrix.linear.out) * row_bytes);
}

void GgufContents::WriteMatrix(size_t index, std::span<const float> importance,
                               GgufWriter& writer) const {
  const GgufMatrix& matrix = layout_.matrices[index];
  const GgmlType type = types_.types[index];
  const MatrixRows rows(source_, matrix);
  const auto row_bytes = static_cast<int64_t>(RowBytesOf(index));
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
    const int64_t at = (matrix.first_row() + begin) * row_bytes;
    writer.WriteAt(matrix.name, static_cast<uint64_t>(at), bytes);
  }
}

void GgufContents::WriteFloats(GgufWriter& writer) const {
  for (const GgufFloats& floats : layout_.floats) {
    const std::vector<float> values = FloatsOf(floats);
    writer.Write(floats.name, std::as_bytes(std::span(values)));
  }
  for (const GgufTable& table : layout_.tables) {
    writer.Write(table.name, std::as_bytes(std::span(table.values)));
  }
}

// Repacked codes and what keeps its type: the same values. Other rows: near enough to be the same
// matrix in the same order, which a bound on the error of the whole tells.
void GgufContents::ProveMatrix(size_t index, const GgufFile& file) const {
  const GgufMatrix& matrix = layout_.matrices[index];
  const GgmlType type = types_.types[index];
  const std::span<const std::byte> bytes = RowsOf(index, file);
  const MatrixRows rows(source_, matrix);
  const auto in = static_cast<size_t>(matrix.linear.in);
  const auto row_bytes = static_cast<size_t>(RowBytesOf(index));
  std::vector<double> errors(static_cast<size_t>(matrix.linear.out));
  std::vector<double> squares(errors.size());
  pool_.ParallelFor(matrix.linear.out, [&](int64_t row, int) {
    std::vector<float> want(in);
    std::vector<float> got(in);
    rows.Read(row, want.data());
    DecodeRow(type, bytes.subspan(static_cast<size_t>(row) * row_bytes, row_bytes), got);
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
                "has values that " + std::string(NameOf(type)) + " does not reach");
  }
  constexpr double kLargestError = 0.1;  // types of 4 bits are near 0.01
  if (error > kLargestError * square) {
    Differs(matrix.name, "decodes to values far from those of " + matrix.linear.name);
  }
}

void GgufContents::ProveHeader(const GgufFile& file) const {
  const auto same = [](const GgufEntry& one, const GgufEntry& two) {
    return one.key == two.key && one.value == two.value;
  };
  if (!std::ranges::equal(file.metadata().entries(), metadata_, same)) {
    Differs(file.file().path().string(), "holds other metadata than was written");
  }
  for (const GgufDeclaration& declared : tensors_) {
    const GgufTensor* tensor = file.Find(declared.name);
    if (tensor == nullptr || tensor->type != declared.type || tensor->shape != declared.shape) {
      Differs(declared.name, "is not the tensor that was written");
    }
  }
}

void GgufContents::ProveFloats(const GgufFile& file) const {
  for (const GgufFloats& floats : layout_.floats) {
    const std::vector<float> want = FloatsOf(floats);
    std::vector<float> got(want.size());
    DecodeRow(GgmlType::kF32, file.Bytes(*file.Find(floats.name)), got);
    if (got != want) Differs(floats.name, "decodes to other values than " + floats.source);
  }
  for (const GgufTable& table : layout_.tables) {
    std::vector<float> got(table.values.size());
    DecodeRow(GgmlType::kF32, file.Bytes(*file.Find(table.name)), got);
    if (got != table.values) Differs(table.name, "decodes to other values");
  }
}

}  // namespace quantmill
