#include "formats/gguf/decoded_tensors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "formats/gguf/codec.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Rounds to T; false where a value is not finite in T, its index in `bad`.
template <typename T>
bool Store(std::span<const float> values, T (*convert)(float), std::byte* to, size_t& bad) {
  bool finite = true;
  for (size_t i = 0; i < values.size(); ++i) {
    const T value = convert(values[i]);
    finite &= std::isfinite(ToFloat(value));
    std::memcpy(to + i * sizeof(T), &value, sizeof(T));
  }
  for (bad = 0; !finite && std::isfinite(ToFloat(convert(values[bad])));) ++bad;
  return finite;
}

float AsItIs(float x) { return x; }

bool StoreAs(DType dtype, std::span<const float> values, std::byte* to, size_t& bad) {
  if (dtype == DType::kF32) return Store<float>(values, AsItIs, to, bad);
  if (dtype == DType::kF16) return Store<F16>(values, ToF16, to, bad);
  Check(dtype == DType::kBF16, "GgufTensors: no such dense type");
  return Store<BF16>(values, ToBF16, to, bad);
}

}  // namespace

GgufTensors::GgufTensors(GgufModelFiles files, std::vector<GgufDecoded> tensors)
    : files_(std::move(files)), decoded_(std::move(tensors)) {
  for (const GgufDecoded& tensor : decoded_) {
    const TensorDeclaration declared = Declare(tensor.name, tensor.dtype, tensor.shape);
    infos_.push_back({declared.name, declared.dtype, declared.shape, 0, declared.bytes()});
  }
}

GgufTensors::Extent GgufTensors::ExtentOf(size_t index) const {
  const GgufDecoded& decoded = decoded_[index];
  const GgufTensor& tensor = *decoded.place.tensor;
  const uint64_t row_bytes = *RowBytes(tensor.type, tensor.cols());
  const bool matrix = decoded.shape.size() > 1;
  const auto rows = static_cast<uint64_t>(matrix ? decoded.shape[decoded.transposed ? 1 : 0] : 1);
  return {static_cast<uint64_t>(decoded.first_row) * row_bytes, rows * row_bytes};
}

StoredTensor GgufTensors::Stored(size_t index) const {
  const GgufTensor& tensor = *decoded_[index].place.tensor;
  return {std::string(NameOf(tensor.type)), ExtentOf(index).bytes};
}

std::string GgufTensors::Location(size_t index) const { return decoded_[index].place.Location(); }

void GgufTensors::Release(size_t index) const {
  const GgufPlace& place = decoded_[index].place;
  const Extent extent = ExtentOf(index);
  place.file->file().Release(place.tensor->offset + extent.begin, extent.bytes);
}

std::span<const std::byte> GgufTensors::StoredRow(size_t index, int64_t row) const {
  const GgufDecoded& decoded = decoded_[index];
  const GgufTensor& tensor = *decoded.place.tensor;
  const bool moved = decoded.shape.size() > 1 && !decoded.rows.empty();
  const int64_t at = decoded.first_row + (moved ? decoded.rows[static_cast<size_t>(row)] : row);
  const auto bytes = static_cast<size_t>(*RowBytes(tensor.type, tensor.cols()));
  return decoded.place.file->Bytes(tensor).subspan(static_cast<size_t>(at) * bytes, bytes);
}

void GgufTensors::FailAt(size_t index, int64_t row, int64_t col, float value) const {
  const GgufDecoded& decoded = decoded_[index];
  const std::string element = "element [" + std::to_string(row) + ", " + std::to_string(col) + "] ";
  if (!std::isfinite(value)) {
    throw Error(ErrorCode::kBadInput, Location(index),
                element + "decodes to NaN or infinity: the file is damaged");
  }
  throw Error(ErrorCode::kBadInput, Location(index),
              element + "is " + std::to_string(value) + ", which " +
                  std::string(NameOf(decoded.dtype)) +
                  " does not reach; give --dequantize bf16 or f32");
}

void GgufTensors::ReadRow(size_t index, int64_t row, std::span<float> values) const {
  const GgufDecoded& decoded = decoded_[index];
  DecodeRow(decoded.place.tensor->type, StoredRow(index, row), values);
  if (decoded.added != 0) {
    for (float& value : values) value -= decoded.added;
  }
  if (decoded.shape.size() > 1 || decoded.rows.empty()) return;
  const std::vector<float> in_file(values.begin(), values.end());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = in_file[static_cast<size_t>(decoded.rows[i])];
  }
}

std::vector<float> GgufTensors::ReadColumns(size_t index, int64_t row, int64_t count) const {
  const GgufDecoded& decoded = decoded_[index];
  const GgmlTypeInfo& type = InfoOf(decoded.place.tensor->type);
  // Only the blocks that hold these columns are decoded.
  const int64_t first = row / type.block_elements;
  const int64_t end = (row + count + type.block_elements - 1) / type.block_elements;
  const auto block_bytes = static_cast<size_t>(type.block_bytes);
  const auto skipped = static_cast<size_t>(row - first * type.block_elements);
  std::vector<float> values(static_cast<size_t>((end - first) * type.block_elements));
  const auto cols = static_cast<size_t>(decoded.shape[1]);
  std::vector<float> result(static_cast<size_t>(count) * cols);
  for (size_t col = 0; col < cols; ++col) {
    const std::span<const std::byte> stored = StoredRow(index, static_cast<int64_t>(col));
    DecodeRow(type.type,
              stored.subspan(static_cast<size_t>(first) * block_bytes,
                             static_cast<size_t>(end - first) * block_bytes),
              values);
    for (size_t r = 0; r < static_cast<size_t>(count); ++r) {
      result[r * cols + col] = values[skipped + r];
    }
  }
  return result;
}

void GgufTensors::ReadRows(size_t index, int64_t row, int64_t count,
                           std::span<std::byte> to) const {
  const GgufDecoded& decoded = decoded_[index];
  const auto cols = static_cast<size_t>(decoded.shape.back());
  const size_t row_bytes = cols * static_cast<size_t>(SizeOf(decoded.dtype));
  Check(to.size() == static_cast<size_t>(count) * row_bytes, "ReadRows: a buffer of another size");
  std::vector<float> columns;
  if (decoded.transposed) columns = ReadColumns(index, row, count);
  std::vector<float> values(decoded.transposed ? 0 : cols);
  for (int64_t r = 0; r < count; ++r) {
    if (!decoded.transposed) ReadRow(index, row + r, values);
    const std::span<const float> read =
        decoded.transposed ? std::span(columns).subspan(static_cast<size_t>(r) * cols, cols)
                           : std::span<const float>(values);
    size_t bad = 0;
    if (StoreAs(decoded.dtype, read, to.data() + static_cast<size_t>(r) * row_bytes, bad)) continue;
    FailAt(index, row + r, static_cast<int64_t>(bad), read[bad]);
  }
}

}  // namespace quantmill
