#include "quant/pipeline/gguf_contents.h"

#include <algorithm>
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
      Check(!matrix.linear.transposed, "gguf: no family that is written has transposed weights");
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
    if (name.ends_with("rotary_emb.inv_freq")) continue;  // old checkpoints: follows from config
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

std::vector<float> GgufContents::VectorOf(const GgufVector& vector) const {
  const Tensor values = source_.ReadVector(vector.source);
  std::vector<float> result(static_cast<size_t>(values.cols()));
  for (int64_t i = 0; i < values.cols(); ++i) {
    result[static_cast<size_t>(i)] = values.Row<float>(0)[RopeRow(i, values.cols(), vector.heads)];
  }
  return result;
}

void GgufContents::WriteMatrix(size_t index, std::span<const float> importance,
                               GgufWriter& writer) const {
  const GgufMatrix& matrix = layout_.matrices[index];
  const GgmlType type = types_.types[index];
  const MatrixRows rows(source_, matrix);
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

void GgufContents::WriteVectors(GgufWriter& writer) const {
  for (const GgufVector& vector : layout_.vectors) {
    const std::vector<float> values = VectorOf(vector);
    writer.Write(vector.name, std::as_bytes(std::span(values)));
  }
  if (!layout_.rope_divisors.empty()) {
    writer.Write("rope_freqs.weight", std::as_bytes(std::span(layout_.rope_divisors)));
  }
}

// Repacked codes and what keeps its type: the same values. Other rows: near enough to be the same
// matrix in the same order, which a bound on the error of the whole tells.
void GgufContents::ProveMatrix(size_t index, const GgufFile& file) const {
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

void GgufContents::ProveVectors(const GgufFile& file) const {
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

}  // namespace quantmill
