#include "formats/module_tensors.h"

#include <algorithm>
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

void StartRows(const QuantizedModule& module, RowRange range, QuantizedLinear& rows) {
  const int64_t unit = RowUnit(module.scheme);
  Check(0 <= range.begin && range.begin < range.end && range.end <= module.out &&
            range.begin % unit == 0 && (range.end % unit == 0 || range.end == module.out),
        "ReadRows: rows that cannot be read apart");
  rows.scheme = module.scheme;
  rows.out = range.count();
  rows.in = module.in;
  rows.scales.clear();
  rows.zero_points.clear();
  rows.global_scale = 1;
  rows.input_scale = 0;
  rows.input_zero_point = 0;
}

void ReadByteCodes(const ModuleTensors& tensors, std::string_view suffix, DType dtype,
                   const QuantizedModule& module, RowRange range, QuantizedLinear& rows) {
  const auto bytes =
      LinesOf(tensors.Expect(suffix, NameOf(dtype), {module.out, module.in}), module.out, range);
  rows.codes.resize(bytes.size());
  std::memcpy(rows.codes.data(), bytes.data(), bytes.size());
}

void ReadFp8Codes(const ModuleTensors& tensors, std::string_view suffix,
                  const QuantizedModule& module, RowRange range, QuantizedLinear& rows) {
  ReadByteCodes(tensors, suffix, DType::kF8E4M3, module, range, rows);
  const auto is_nan = [](int8_t code) { return (code & 0x7F) == 0x7F; };
  const auto nan = std::ranges::find_if(rows.codes, is_nan);
  if (nan == rows.codes.end()) return;
  const auto index = static_cast<int64_t>(nan - rows.codes.begin());
  tensors.Fail(suffix, "element [" + std::to_string(range.begin + index / module.in) + ", " +
                           std::to_string(index % module.in) + "] is NaN");
}

std::span<const std::byte> LinesOf(std::span<const std::byte> bytes, int64_t lines,
                                   RowRange range) {
  const size_t line = bytes.size() / static_cast<size_t>(lines);
  return bytes.subspan(static_cast<size_t>(range.begin) * line,
                       static_cast<size_t>(range.count()) * line);
}

std::vector<std::byte> ColumnsOf(std::span<const std::byte> bytes, int64_t lines, RowRange range,
                                 int64_t size) {
  const size_t line = bytes.size() / static_cast<size_t>(lines);
  const auto count = static_cast<size_t>(range.count() * size);
  std::vector<std::byte> columns(static_cast<size_t>(lines) * count);
  for (size_t i = 0; i < static_cast<size_t>(lines); ++i) {
    std::memcpy(columns.data() + i * count,
                bytes.data() + i * line + static_cast<size_t>(range.begin * size), count);
  }
  return columns;
}

std::vector<uint32_t> ToWords(std::span<const std::byte> bytes) {
  std::vector<uint32_t> words(bytes.size() / sizeof(uint32_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(uint32_t));
  return words;
}

}  // namespace quantmill
