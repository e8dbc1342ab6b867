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

StoredTensor GgufTensors::Stored(size_t index) const {
  const GgufTensor& tensor = *decoded_[index].place.tensor;
  return {std::string(NameOf(tensor.type)), tensor.bytes};
}

std::string GgufTensors::Location(size_t index) const { return decoded_[index].place.Location(); }

void GgufTensors::Release(size_t index) const {
  const GgufPlace& place = decoded_[index].place;
  place.file->file().Release(place.tensor->offset, place.tensor->bytes);
}

std::span<const std::byte> GgufTensors::StoredRow(size_t index, int64_t row) const {
  const GgufDecoded& decoded = decoded_[index];
  const GgufTensor& tensor = *decoded.place.tensor;
  const bool moved = decoded.shape.size() > 1 && !decoded.rows.empty();
  const int64_t at = moved ? decoded.rows[static_cast<size_t>(row)] : row;
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

void GgufTensors::ReadRows(size_t index, int64_t row, int64_t count,
                           std::span<std::byte> to) const {
  const GgufDecoded& decoded = decoded_[index];
  const auto cols = static_cast<size_t>(decoded.shape.back());
  const size_t row_bytes = cols * static_cast<size_t>(SizeOf(decoded.dtype));
  Check(to.size() == static_cast<size_t>(count) * row_bytes, "ReadRows: a buffer of another size");
  std::vector<float> values(cols);
  std::vector<float> moved;
  for (int64_t r = 0; r < count; ++r) {
    DecodeRow(decoded.place.tensor->type, StoredRow(index, row + r), values);
    if (decoded.shape.size() == 1 && !decoded.rows.empty()) {
      moved.resize(cols);
      for (size_t i = 0; i < cols; ++i) moved[i] = values[static_cast<size_t>(decoded.rows[i])];
      values.swap(moved);
    }
    size_t bad = 0;
    if (StoreAs(decoded.dtype, values, to.data() + static_cast<size_t>(r) * row_bytes, bad))
      continue;
    FailAt(index, row + r, static_cast<int64_t>(bad), values[bad]);
  }
}

}  // namespace quantmill
