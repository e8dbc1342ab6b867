// The header of a safetensors file: an event parser (so that a key given twice is seen) and the
// checks of the reference reader, in its order.
#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "formats/json.h"
#include "formats/safetensors.h"
#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

static_assert(std::endian::native == std::endian::little, "the formats are little-endian");

struct TypeRow {
  std::string_view name;
  int bits;
};

// In the reference's order, which its writer reverses for the layout of a file.
constexpr std::array<TypeRow, 22> kTypes = {{
    {"BOOL", 8},        {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"U8", 8},
    {"I8", 8},          {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8}, {"I16", 16},    {"U16", 16},    {"F16", 16},    {"BF16", 16},
    {"I32", 32},        {"U32", 32},    {"F32", 32},    {"C64", 64},    {"F64", 64},
    {"I64", 64},        {"U64", 64},
}};

// Dimensions are stored as signed 64 bits here; a larger one cannot belong to a file.
constexpr uint64_t kMaxDimension = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());

// One tensor as it is read, before any check across fields.
struct Entry {
  TensorInfo info;
  std::vector<uint64_t> offsets;
  std::set<std::string> fields;
};

// Receives the events of nlohmann's parser. A small state machine: the format has exactly two
// levels of objects and one level of arrays, so that nothing can nest deeper.
class HeaderEvents {
 public:
  using json = nlohmann::json;
  using number_integer_t = json::number_integer_t;
  using number_unsigned_t = json::number_unsigned_t;
  using number_float_t = json::number_float_t;
  using string_t = json::string_t;
  using binary_t = json::binary_t;

  HeaderEvents(const std::string& path, const size_t& consumed)
      : path_(path), consumed_(consumed) {}

  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool null() { Fail("null is no value of this format"); }
  bool boolean(bool) { Fail("a boolean is no value of this format"); }
  bool number_integer(number_integer_t) { Fail("a number must not be negative"); }
  bool number_float(number_float_t, const string_t&) { Fail("a number must be a whole number"); }
  bool binary(binary_t&) { Fail("binary data is no value of this format"); }

  bool number_unsigned(number_unsigned_t value) {
    if (state_ == State::kShape) {
      if (value > kMaxDimension) Fail("a dimension of the shape is out of range");
      entries.back().info.shape.push_back(static_cast<int64_t>(value));
    } else if (state_ == State::kOffsets) {
      if (entries.back().offsets.size() == 2) Fail("data_offsets must have two numbers");
      entries.back().offsets.push_back(value);
    } else {
      Fail("a number is not expected here");
    }
    return true;
  }

  bool string(string_t& value) {
    if (state_ == State::kMetadata) {
      metadata[key_] = value;
    } else if (state_ == State::kTensor && key_ == "dtype") {
      if (BitsOfSafetensorsType(value) == 0) Fail("unknown dtype '" + value + "'");
      entries.back().info.dtype = value;
    } else {
      Fail("a string is not expected here");
    }
    return true;
  }

  bool start_object(size_t) {
    if (state_ == State::kStart) {
      state_ = State::kTop;
    } else if (state_ == State::kTop && in_metadata_) {
      state_ = State::kMetadata;
    } else if (state_ == State::kTop) {
      state_ = State::kTensor;
      entries.emplace_back().info.name = key_;
    } else {
      Fail("an object is not expected here");
    }
    return true;
  }

  bool end_object() {
    if (state_ == State::kTensor) {
      for (const char* field : {"dtype", "shape", "data_offsets"}) {
        if (!entries.back().fields.contains(field)) Fail(std::string("has no ") + field);
      }
    }
    tensor_.clear();
    state_ = state_ == State::kTop ? State::kEnd : State::kTop;
    return true;
  }

  bool key(string_t& name) {
    if (state_ == State::kTop) {
      in_metadata_ = name == "__metadata__";
      tensor_ = in_metadata_ ? "" : name;
      NoteKey(names_, name);
    } else if (state_ == State::kMetadata) {
      NoteKey(metadata_keys_, name);
    } else {
      if (name != "dtype" && name != "shape" && name != "data_offsets") {
        Fail("unknown field '" + name + "'");
      }
      NoteKey(entries.back().fields, name);
    }
    key_ = std::move(name);
    return true;
  }

  bool start_array(size_t) {
    if (state_ == State::kTensor && key_ == "shape") {
      state_ = State::kShape;
    } else if (state_ == State::kTensor && key_ == "data_offsets") {
      state_ = State::kOffsets;
    } else {
      Fail("an array is not expected here");
    }
    return true;
  }

  bool end_array() {
    if (state_ == State::kOffsets && entries.back().offsets.size() != 2) {
      Fail("data_offsets must have two numbers");
    }
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(size_t, const std::string&, const json::exception& error) {
    Fail(std::string("the header is not valid JSON: ") + error.what());
  }

 private:
  enum class State { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  void NoteKey(std::set<std::string>& keys, const std::string& name) {
    if (!keys.insert(name).second) Fail("key '" + name + "' is given twice");
  }

  [[noreturn]] void Fail(const std::string& what) const {
    throw Error(ErrorCode::kBadInput, path_,
                (tensor_.empty() ? "" : "tensor '" + tensor_ + "': ") + what + " (byte offset " +
                    std::to_string(8 + consumed_) + ")");
  }

  const std::string& path_;
  const size_t& consumed_;
  State state_ = State::kStart;
  bool in_metadata_ = false;
  std::string key_;
  std::string tensor_;  // for messages
  std::set<std::string> names_;
  std::set<std::string> metadata_keys_;
};

// Size in bits of the declared elements, or nothing if it overflows.
std::optional<uint64_t> BitsOf(const std::string& dtype, std::span<const int64_t> shape) {
  uint64_t bits = static_cast<uint64_t>(BitsOfSafetensorsType(dtype));
  for (const int64_t size : shape) {
    if (__builtin_mul_overflow(bits, static_cast<uint64_t>(size), &bits)) return std::nullopt;
  }
  return bits;
}

// What fails in the layout of one tensor whose data must begin at `expected_begin`, or "".
std::string LayoutProblem(const TensorInfo& info, uint64_t expected_begin) {
  if (info.end < info.begin) return "its data ends before it begins";
  if (info.begin > expected_begin) {
    return "a hole of " + std::to_string(info.begin - expected_begin) + " bytes before its data";
  }
  if (info.begin < expected_begin) return "its data overlaps that of another tensor";
  const std::optional<uint64_t> bits = BitsOf(info.dtype, info.shape);
  if (!bits) return "its shape " + ShapeString(info.shape) + " overflows";
  if (*bits % 8 != 0) return "its size of " + std::to_string(*bits) + " bits is no whole byte";
  if (*bits / 8 != info.bytes()) {
    return info.dtype + " " + ShapeString(info.shape) + " needs " + std::to_string(*bits / 8) +
           " bytes, but data_offsets give it " + std::to_string(info.bytes());
  }
  return "";
}

// Walks over the tensors in the order of their data: contiguous, sized as declared, up to the end.
void CheckLayout(const SafetensorsHeader& header, uint64_t file_size, const std::string& path) {
  std::vector<const TensorInfo*> order;
  order.reserve(header.tensors.size());
  for (const TensorInfo& info : header.tensors) order.push_back(&info);
  std::sort(order.begin(), order.end(), [](const TensorInfo* a, const TensorInfo* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  const uint64_t data_size = file_size - header.data_offset;
  uint64_t expected_begin = 0;
  for (const TensorInfo* info : order) {
    std::string problem = LayoutProblem(*info, expected_begin);
    if (problem.empty() && info->end > data_size) {
      problem = "the file ends " + std::to_string(info->end - data_size) +
                " bytes before the end of its data: it is cut short";
    }
    if (!problem.empty()) {
      // The sum saturates: offsets of a bad file may be anything.
      const uint64_t at = info->begin > UINT64_MAX - header.data_offset
                              ? UINT64_MAX
                              : header.data_offset + info->begin;
      throw Error(
          ErrorCode::kBadInput, path,
          "tensor '" + info->name + "': " + problem + " (byte offset " + std::to_string(at) + ")");
    }
    expected_begin = info->end;
  }
  if (expected_begin != data_size) {
    throw Error(ErrorCode::kBadInput, path,
                std::to_string(data_size - expected_begin) +
                    " bytes follow the last tensor (byte offset " +
                    std::to_string(header.data_offset + expected_begin) + ")");
  }
}

// The JSON text of the header, after the checks that come before parsing.
std::string_view HeaderText(std::span<const std::byte> bytes, uint64_t file_size,
                            const std::string& path) {
  const auto fail = [&](const std::string& what, uint64_t offset) {
    throw Error(ErrorCode::kBadInput, path, what + " (byte offset " + std::to_string(offset) + ")");
  };
  if (file_size < 8 || bytes.size() < 8) {
    fail("has only " + std::to_string(file_size) + " bytes: no safetensors file, or cut short",
         file_size);
  }
  uint64_t size = 0;
  std::memcpy(&size, bytes.data(), sizeof(size));
  if (size > kMaxSafetensorsHeader) {
    fail("the header size " + std::to_string(size) + " is over the format's limit of " +
             std::to_string(kMaxSafetensorsHeader) + ": no safetensors file",
         0);
  }
  if (size > file_size - 8 || size > bytes.size() - 8) {
    fail("the header of " + std::to_string(size) + " bytes goes past the end of the file", 8);
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, size);
  if (const std::optional<size_t> at = FindInvalidUtf8(text)) {
    fail("the header is not valid UTF-8", 8 + *at);
  }
  // The parser takes NUL for the end of its input, so whatever follows one would go unseen.
  if (const size_t at = text.find('\0'); at != std::string_view::npos) {
    fail("the header holds a NUL byte", 8 + at);
  }
  if (!text.starts_with('{')) fail("the header does not start with '{'", 8);
  return text;
}

}  // namespace

int BitsOfSafetensorsType(std::string_view dtype) {
  const auto* row =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeRow& r) { return r.name == dtype; });
  return row == kTypes.end() ? 0 : row->bits;
}

int RankOfSafetensorsType(std::string_view dtype) {
  const auto* row =
      std::find_if(kTypes.begin(), kTypes.end(), [&](const TypeRow& r) { return r.name == dtype; });
  return static_cast<int>(row - kTypes.begin());
}

std::optional<DType> DTypeFromName(std::string_view dtype) {
  for (const DType type :
       {DType::kF64, DType::kF32, DType::kF16, DType::kBF16, DType::kF8E4M3, DType::kF8E8M0,
        DType::kI64, DType::kI32, DType::kI16, DType::kI8, DType::kU8, DType::kBool}) {
    if (NameOf(type) == dtype) return type;
  }
  return std::nullopt;
}

std::string ShapeString(std::span<const int64_t> shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

int64_t TensorInfo::elements() const {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return count;
}

TensorDeclaration Declare(std::string name, DType dtype, std::vector<int64_t> shape) {
  return {std::move(name), std::string(NameOf(dtype)), std::move(shape)};
}

uint64_t TensorDeclaration::bytes() const {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::kBadInput, "tensor '" + name + "'", what);
  };
  if (BitsOfSafetensorsType(dtype) == 0) fail("unknown dtype '" + dtype + "'");
  for (const int64_t size : shape) {
    if (size < 0) fail("negative dimension in " + ShapeString(shape));
  }
  const std::optional<uint64_t> bits = BitsOf(dtype, shape);
  if (!bits) fail("its shape " + ShapeString(shape) + " overflows");
  if (*bits % 8 != 0) fail("its size of " + std::to_string(*bits) + " bits is no whole byte");
  return *bits / 8;
}

SafetensorsHeader ParseSafetensorsHeader(std::span<const std::byte> bytes, uint64_t file_size,
                                         const std::string& path) {
  const std::string_view text = HeaderText(bytes, file_size, path);
  size_t consumed = 0;
  HeaderEvents events(path, consumed);
  nlohmann::json::sax_parse(CountingIterator(text.data(), &consumed),
                            CountingIterator(text.data() + text.size(), &consumed), &events);
  SafetensorsHeader header;
  header.data_offset = 8 + text.size();
  header.metadata = std::move(events.metadata);
  for (Entry& entry : events.entries) {
    entry.info.begin = entry.offsets[0];
    entry.info.end = entry.offsets[1];
    header.tensors.push_back(std::move(entry.info));
  }
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  CheckLayout(header, file_size, path);
  return header;
}

}  // namespace quantmill
