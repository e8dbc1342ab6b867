// Parsing of the header. Byte table: gguf.h.
#include <algorithm>
#include <bit>
#include <set>
#include <utility>

#include "formats/gguf.h"
#include "formats/gguf/cursor.h"
#include "formats/safetensors.h"
#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr uint64_t kSmallestEntry = 8 + 1 + 4 + 1;  // key of one byte, type, value of one byte
constexpr uint64_t kSmallestInfo = 8 + 1 + 4 + 4 + 8;

// The file formats of ggml before GGUF, by their first four bytes.
constexpr std::pair<std::string_view, std::string_view> kOldFormats[] = {
    {"lmgg", "GGML"}, {"fmgg", "GGMF"}, {"tjgg", "GGJT"}, {"algg", "GGLA"}};

void ParseMagic(Cursor& cursor, std::span<const std::byte> bytes) {
  const std::string_view magic(reinterpret_cast<const char*>(bytes.data()),
                               std::min<size_t>(4, bytes.size()));
  for (const auto& [old, name] : kOldFormats) {
    if (magic != old) continue;
    cursor.Fail("a " + std::string(name) +
                " file, a format before GGUF: convert the original model again");
  }
  if (magic.size() == 4 && magic != "GGUF") cursor.Fail("does not begin with 'GGUF': no GGUF file");
  cursor.Number<uint32_t>("the magic number 'GGUF'");
  const uint64_t at = cursor.offset();
  const auto version = cursor.Number<uint32_t>("the version");
  if (version == 3) return;
  if (version != 0 && (version & 0xFFFFu) == 0) {
    cursor.FailAt(at, "a big-endian GGUF file: only little-endian ones are read");
  }
  cursor.FailAt(at, "GGUF version " + std::to_string(version) + ": only version 3 is read" +
                        (version < 3 ? "; convert the original model again" : ""));
}

// A name that can be shown: error messages and reports are UTF-8.
std::string ParseName(Cursor& cursor, std::string_view what) {
  const uint64_t at = cursor.offset();
  std::string name = cursor.Text(what);
  if (name.empty()) cursor.FailAt(at, std::string(what) + " is empty");
  if (FindInvalidUtf8(name)) cursor.FailAt(at, std::string(what) + " is not valid UTF-8");
  if (name.find('\0') != std::string::npos) {
    cursor.FailAt(at, std::string(what) + " holds a NUL byte");
  }
  return name;
}

GgufValueType ParseType(Cursor& cursor, const std::string& what) {
  const uint64_t at = cursor.offset();
  const auto id = cursor.Number<uint32_t>(what);
  if (id >= kGgufValueTypes) {
    cursor.FailAt(at, what + " has the unknown type " + std::to_string(id));
  }
  return static_cast<GgufValueType>(id);
}

bool ParseBool(Cursor& cursor, const std::string& what) {
  const uint64_t at = cursor.offset();
  const auto byte = cursor.Number<uint8_t>(what);
  if (byte > 1) cursor.FailAt(at, what + " is a BOOL of value " + std::to_string(byte));
  return byte == 1;
}

template <typename T>
T ParseScalar(Cursor& cursor, const std::string& what) {
  if constexpr (std::is_same_v<T, bool>) {
    return ParseBool(cursor, what);
  } else if constexpr (std::is_same_v<T, std::string>) {
    return cursor.Text(what);
  } else {
    return cursor.Number<T>(what);
  }
}

template <typename T>
std::vector<T> ParseElements(Cursor& cursor, uint64_t count, const std::string& what) {
  cursor.RequireCount(count, std::is_same_v<T, std::string> ? 8 : sizeof(T), what);
  std::vector<T> elements;
  elements.reserve(count);
  for (uint64_t i = 0; i < count; ++i) elements.push_back(ParseScalar<T>(cursor, what));
  return elements;
}

// Calls `visit` with a zero of the C++ type that holds a scalar or string of `type`.
template <typename Visit>
auto WithType(GgufValueType type, Visit&& visit) {
  using enum GgufValueType;
  switch (type) {
    case kU8:
      return visit(uint8_t{});
    case kI8:
      return visit(int8_t{});
    case kU16:
      return visit(uint16_t{});
    case kI16:
      return visit(int16_t{});
    case kU32:
      return visit(uint32_t{});
    case kI32:
      return visit(int32_t{});
    case kF32:
      return visit(float{});
    case kBool:
      return visit(bool{});
    case kString:
      return visit(std::string());
    case kU64:
      return visit(uint64_t{});
    case kI64:
      return visit(int64_t{});
    case kF64:
      return visit(double{});
    case kArray:
      break;
  }
  Check(false, "an array is no scalar");
  std::abort();
}

GgufValue ParseArray(Cursor& cursor, const std::string& what) {
  const uint64_t at = cursor.offset();
  const GgufValueType type = ParseType(cursor, what);
  if (type == GgufValueType::kArray) {
    cursor.FailAt(at, what + " is an array of arrays, which no reader accepts");
  }
  const uint64_t count_at = cursor.offset();
  const auto count = cursor.Number<uint64_t>(what);
  if (count > kMaxGgufArray) {
    cursor.FailAt(count_at, what + " has " + std::to_string(count) + " elements; at most " +
                                std::to_string(kMaxGgufArray) + " are read");
  }
  return WithType(type, [&](const auto& zero) -> GgufValue {
    return GgufArray(ParseElements<std::decay_t<decltype(zero)>>(cursor, count, what));
  });
}

GgufEntry ParseEntry(Cursor& cursor) {
  GgufEntry entry;
  entry.key = ParseName(cursor, "a metadata key");
  const std::string what = "metadata key '" + entry.key + "'";
  const GgufValueType type = ParseType(cursor, what);
  entry.value = type == GgufValueType::kArray
                    ? ParseArray(cursor, what)
                    : WithType(type, [&](const auto& zero) -> GgufValue {
                        return ParseScalar<std::decay_t<decltype(zero)>>(cursor, what);
                      });
  return entry;
}

std::vector<GgufEntry> ParseEntries(Cursor& cursor, uint64_t count) {
  cursor.RequireCount(count, kSmallestEntry, "metadata entries");
  std::vector<GgufEntry> entries;
  std::set<std::string> keys;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = cursor.offset();
    entries.push_back(ParseEntry(cursor));
    if (!keys.insert(entries.back().key).second) {
      cursor.FailAt(at, "metadata key '" + entries.back().key + "' occurs twice");
    }
  }
  return entries;
}

uint64_t AlignmentOf(const GgufMetadata& metadata, const std::string& path) {
  const GgufValue* value = metadata.Find("general.alignment");
  if (value == nullptr) return kDefaultGgufAlignment;
  const auto* alignment = std::get_if<uint32_t>(value);
  if (alignment == nullptr) metadata.Fail("general.alignment", "a U32");
  if (!std::has_single_bit(*alignment)) {
    throw Error(
        ErrorCode::kBadInput, path,
        "metadata key 'general.alignment' is " + std::to_string(*alignment) + ", no power of two");
  }
  return *alignment;
}

// The type number of a tensor, refusing by name.
GgmlType ParseGgmlType(Cursor& cursor, const std::string& what) {
  const uint64_t at = cursor.offset();
  const auto id = cursor.Number<uint32_t>(what);
  if (const std::optional<GgmlType> type = GgmlTypeFromId(id)) return *type;
  const std::string_view removed = RemovedGgmlTypeName(id);
  if (!removed.empty()) {
    cursor.FailAt(at, what + " has the type " + std::string(removed) +
                          ", which ggml has removed: convert the original model again");
  }
  cursor.FailAt(at, what + " has the type " + std::to_string(id) +
                        ", which is unknown: the file may be newer than this program");
}

// The sizes, innermost first in the file, as a shape.
std::vector<int64_t> ParseShape(Cursor& cursor, const std::string& what) {
  const uint64_t at = cursor.offset();
  const auto dimensions = cursor.Number<uint32_t>(what);
  if (dimensions > kMaxGgufDimensions) {
    cursor.FailAt(at, what + " has " + std::to_string(dimensions) + " dimensions; at most " +
                          std::to_string(kMaxGgufDimensions) + " are possible");
  }
  std::vector<int64_t> shape(dimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    const uint64_t size_at = cursor.offset();
    const auto size = cursor.Number<int64_t>(what);
    if (size < 0) cursor.FailAt(size_at, what + " has a dimension above 2^63");
    shape[dimensions - 1 - i] = size;
  }
  return shape;
}

// Bytes of a tensor and what is wrong with its shape, or "".
std::string MeasureTensor(GgmlType type, std::span<const int64_t> shape, uint64_t& bytes) {
  const int64_t cols = shape.empty() ? 1 : shape.back();
  const GgmlTypeInfo& info = InfoOf(type);
  int64_t elements = 1;
  for (const int64_t size : shape) {
    if (size < 0) return "has a negative dimension in " + ShapeString(shape);
    if (__builtin_mul_overflow(elements, size, &elements)) {
      return "has the shape " + ShapeString(shape) + ", which overflows";
    }
  }
  if (cols % info.block_elements != 0) {
    return "has rows of " + std::to_string(cols) + " elements, no multiple of the " +
           std::to_string(info.block_elements) + " of a " + std::string(info.name) + " block";
  }
  const std::optional<uint64_t> measured = RowBytes(type, elements);
  if (!measured) return "has the shape " + ShapeString(shape) + ", which overflows";
  bytes = *measured;
  return "";
}

std::vector<GgufTensor> ParseInfos(Cursor& cursor, uint64_t count) {
  cursor.RequireCount(count, kSmallestInfo, "tensors");
  std::vector<GgufTensor> tensors;
  std::set<std::string> names;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t at = cursor.offset();
    GgufTensor tensor;
    tensor.name = ParseName(cursor, "a tensor's name");
    const std::string what = "tensor '" + tensor.name + "'";
    if (tensor.name.size() > kMaxGgufTensorName) {
      cursor.FailAt(at, what + " has a name of " + std::to_string(tensor.name.size()) +
                            " bytes; at most " + std::to_string(kMaxGgufTensorName) +
                            " are possible");
    }
    if (!names.insert(tensor.name).second) cursor.FailAt(at, what + " occurs twice");
    tensor.shape = ParseShape(cursor, what);
    tensor.type = ParseGgmlType(cursor, what);
    const std::string problem = MeasureTensor(tensor.type, tensor.shape, tensor.bytes);
    if (!problem.empty()) cursor.FailAt(at, what + " " + problem);
    tensor.offset = cursor.Number<uint64_t>(what);  // from the data's beginning, until CheckLayout
    tensors.push_back(std::move(tensor));
  }
  return tensors;
}

// a rounded up to a multiple of `alignment`, a power of two; false if that overflows.
bool Align(uint64_t a, uint64_t alignment, uint64_t& result) {
  if (__builtin_add_overflow(a, alignment - 1, &result)) return false;
  result &= ~(alignment - 1);
  return true;
}

// Contiguous, padded, inside the file. Makes offsets those in the file.
void CheckLayout(GgufHeader& header, uint64_t file_size, const Cursor& cursor) {
  const uint64_t data_size = file_size - std::min(file_size, header.data_offset);
  uint64_t expected = 0;
  uint64_t end = 0;
  for (GgufTensor& tensor : header.tensors) {
    const std::string what = "tensor '" + tensor.name + "': ";
    if (tensor.offset != expected) {
      cursor.FailAt(header.data_offset,
                    what + "its offset is " + std::to_string(tensor.offset) +
                        ", but the tensors before it and their padding end at " +
                        std::to_string(expected) + " of the data");
    }
    if (__builtin_add_overflow(expected, tensor.bytes, &end) ||
        !Align(end, header.alignment, expected)) {
      cursor.FailAt(header.data_offset, what + "the sizes up to here overflow");
    }
    if (end > data_size) {
      // Both terms are below 2^63: the offset is at most the size of the tensors before, which fit.
      cursor.FailAt(header.data_offset + tensor.offset,
                    what + "the file ends " + std::to_string(end - data_size) +
                        " bytes before the end of its data: it is cut short");
    }
    tensor.offset += header.data_offset;
  }
  if (data_size > expected) {
    cursor.FailAt(header.data_offset + expected,
                  std::to_string(data_size - expected) + " bytes follow the last tensor");
  }
}

}  // namespace

int64_t GgufTensor::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

uint64_t GgufDeclaration::bytes() const {
  uint64_t size = 0;
  std::string problem = MeasureTensor(type, shape, size);
  if (shape.size() > kMaxGgufDimensions) {
    problem = "has the shape " + ShapeString(shape) + " of more than four dimensions";
  }
  if (!problem.empty()) throw Error(ErrorCode::kBadInput, "tensor '" + name + "'", problem);
  return size;
}

GgufHeader ParseGgufHeader(std::span<const std::byte> bytes, uint64_t file_size,
                           const std::string& path) {
  Check(bytes.size() <= file_size, "more bytes than the file has");
  Cursor cursor(bytes, path);
  ParseMagic(cursor, bytes);
  const auto tensor_count = cursor.Number<uint64_t>("the number of tensors");
  const auto entry_count = cursor.Number<uint64_t>("the number of metadata entries");
  GgufHeader header;
  header.metadata = GgufMetadata(ParseEntries(cursor, entry_count), path);
  header.alignment = AlignmentOf(header.metadata, path);
  header.tensors = ParseInfos(cursor, tensor_count);
  // Cannot overflow: a header in memory and an alignment of 32 bits.
  Align(cursor.offset(), header.alignment, header.data_offset);
  CheckLayout(header, file_size, cursor);
  return header;
}

}  // namespace quantmill
