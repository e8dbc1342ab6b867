#include "formats/module_tensors.h"

#include <cstring>

#include "formats/scales.h"
#include "kernels/core/error.h"

namespace quantmill {

const TensorInfo& ModuleTensors::Info(std::string_view suffix) const {
  const std::string name = Name(suffix);
  if (!checkpoint_.Has(name)) {
    throw Error(ErrorCode::kBadInput, checkpoint_.folder().string(),
                "has no tensor '" + name + "', which its module needs");
  }
  return checkpoint_.Info(name);
}

std::span<const std::byte> ModuleTensors::Expect(std::string_view suffix, std::string_view dtype,
                                                 const std::vector<int64_t>& shape) const {
  const TensorInfo& info = Info(suffix);
  if (info.dtype != dtype || info.shape != shape) {
    Fail(suffix, "is " + info.dtype + " " + ShapeString(info.shape) + "; expected " +
                     std::string(dtype) + " " + ShapeString(shape));
  }
  return checkpoint_.Bytes(info.name);
}

std::pair<int64_t, int64_t> ModuleTensors::ExpectMatrix(std::string_view suffix,
                                                        std::string_view dtype) const {
  constexpr int64_t kMax = int64_t{1} << 28;
  const TensorInfo& info = Info(suffix);
  if (info.dtype != dtype || info.shape.size() != 2) {
    Fail(suffix, "is " + info.dtype + " " + ShapeString(info.shape) + "; expected " +
                     std::string(dtype) + " of two dimensions");
  }
  for (const int64_t size : info.shape) {
    if (size < 1 || size > kMax) {
      Fail(suffix, "has the impossible shape " + ShapeString(info.shape));
    }
  }
  return {info.shape[0], info.shape[1]};
}

void ModuleTensors::Fail(std::string_view suffix, const std::string& what) const {
  throw Error(ErrorCode::kBadInput, checkpoint_.Location(Name(suffix)), what);
}

float ReadPositive(const ModuleTensors& tensors, std::string_view suffix) {
  const TensorInfo& info = tensors.Info(suffix);
  const std::optional<DType> dtype = info.type();
  const bool is_float = dtype && IsDenseFloat(*dtype);
  const std::vector<int64_t> shape = info.shape.empty() ? info.shape : std::vector<int64_t>{1};
  const std::span<const std::byte> bytes =
      tensors.Expect(suffix, NameOf(is_float ? *dtype : DType::kF32), shape);
  const std::vector<float> value = DecodeScales(bytes, is_float ? *dtype : DType::kF32);
  if (const std::optional<std::string> bad = FindBadScale(value, ScaleSign::kPositive)) {
    tensors.Fail(suffix, *bad + "; it must be finite and above zero");
  }
  return value[0];
}

void ReadFp8Codes(const ModuleTensors& tensors, std::string_view suffix, QuantizedLinear& linear) {
  const auto bytes = tensors.Expect(suffix, NameOf(DType::kF8E4M3), {linear.out, linear.in});
  linear.codes.resize(bytes.size());
  std::memcpy(linear.codes.data(), bytes.data(), bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) {
    if ((bytes[i] & std::byte{0x7F}) != std::byte{0x7F}) continue;
    const auto index = static_cast<int64_t>(i);
    tensors.Fail(suffix, "element [" + std::to_string(index / linear.in) + ", " +
                             std::to_string(index % linear.in) + "] is NaN");
  }
}

std::vector<uint32_t> ToWords(std::span<const std::byte> bytes) {
  std::vector<uint32_t> words(bytes.size() / sizeof(uint32_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(uint32_t));
  return words;
}

}  // namespace quantmill
