#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include "formats/gguf.h"
#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr std::string_view kAlignmentKey = "general.alignment";

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kBadInput, where, what);
}

template <typename T>
void Append(std::string& out, T value) {
  static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendText(std::string& out, std::string_view text) {
  Append<uint64_t>(out, text.size());
  out += text;
}

template <typename T>
void AppendScalar(std::string& out, const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    out += static_cast<char>(value ? 1 : 0);
  } else if constexpr (std::is_same_v<T, std::string>) {
    AppendText(out, value);
  } else {
    Append(out, value);
  }
}

void AppendArray(std::string& out, const GgufArray& array, const std::string& key) {
  Append(out, static_cast<uint32_t>(ElementTypeOf(array)));
  std::visit(
      [&](const auto& elements) {
        if (elements.size() > kMaxGgufArray) Refuse("metadata key '" + key + "'", "is too long");
        Append<uint64_t>(out, elements.size());
        using T = typename std::decay_t<decltype(elements)>::value_type;
        for (size_t i = 0; i < elements.size(); ++i) AppendScalar<T>(out, elements[i]);
      },
      array);
}

void AppendEntry(std::string& out, const GgufEntry& entry) {
  AppendText(out, entry.key);
  Append(out, static_cast<uint32_t>(TypeOf(entry.value)));
  std::visit(
      [&](const auto& value) {
        if constexpr (std::is_same_v<std::decay_t<decltype(value)>, GgufArray>) {
          AppendArray(out, value, entry.key);
        } else {
          AppendScalar(out, value);
        }
      },
      entry.value);
}

void CheckName(const std::string& where, std::string_view name) {
  if (name.empty()) Refuse(where, "the name is empty");
  if (FindInvalidUtf8(name) || name.find('\0') != std::string_view::npos) {
    Refuse(where, "the name is not valid UTF-8, or holds a NUL byte");
  }
}

// Throws naming `kind` and the name unless all names differ.
void CheckDistinct(std::vector<std::string_view> names, const std::string& kind) {
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) Refuse(kind + " '" + std::string(*twin) + "'", "declared twice");
}

void CheckEntries(const std::vector<GgufEntry>& entries) {
  std::vector<std::string_view> keys;
  for (const GgufEntry& entry : entries) {
    CheckName("metadata key '" + entry.key + "'", entry.key);
    Check(entry.key != kAlignmentKey, "the alignment is the writer's to say");
    keys.push_back(entry.key);
  }
  CheckDistinct(std::move(keys), "metadata key");
}

void CheckDeclarations(const std::vector<GgufDeclaration>& tensors) {
  std::vector<std::string_view> names;
  for (const GgufDeclaration& tensor : tensors) {
    const std::string where = "tensor '" + tensor.name + "'";
    CheckName(where, tensor.name);
    if (tensor.name.size() > kMaxGgufTensorName) {
      Refuse(where, "its name has " + std::to_string(tensor.name.size()) +
                        " bytes; GGUF readers accept " + std::to_string(kMaxGgufTensorName));
    }
    names.push_back(tensor.name);
  }
  CheckDistinct(std::move(names), "tensor");
}

uint64_t Align(uint64_t size, uint64_t alignment) {
  return (size + alignment - 1) / alignment * alignment;
}

// Offsets of the tensors in the data, and last where the padded data ends.
std::vector<uint64_t> Offsets(const std::vector<GgufDeclaration>& tensors, uint64_t alignment) {
  // So much fits on no disk; below it no sum can overflow.
  constexpr uint64_t kMost = uint64_t{1} << 60;
  std::vector<uint64_t> offsets = {0};
  for (const GgufDeclaration& tensor : tensors) {
    const uint64_t bytes = tensor.bytes();
    if (bytes > kMost || offsets.back() > kMost) {
      Refuse("tensor '" + tensor.name + "'", "the sizes of all tensors together overflow");
    }
    offsets.push_back(Align(offsets.back() + bytes, alignment));
  }
  return offsets;
}

std::string HeaderBytes(const std::vector<GgufEntry>& metadata,
                        const std::vector<GgufDeclaration>& tensors,
                        const std::vector<uint64_t>& offsets, uint64_t alignment) {
  const bool says_alignment = alignment != kDefaultGgufAlignment;
  std::string out = "GGUF";
  Append<uint32_t>(out, 3);
  Append<uint64_t>(out, tensors.size());
  Append<uint64_t>(out, metadata.size() + (says_alignment ? 1 : 0));
  for (const GgufEntry& entry : metadata) AppendEntry(out, entry);
  if (says_alignment) {
    AppendEntry(out, {std::string(kAlignmentKey), static_cast<uint32_t>(alignment)});
  }
  for (size_t i = 0; i < tensors.size(); ++i) {
    const GgufDeclaration& tensor = tensors[i];
    AppendText(out, tensor.name);
    Append(out, static_cast<uint32_t>(tensor.shape.size()));
    for (size_t d = tensor.shape.size(); d > 0; --d) Append(out, tensor.shape[d - 1]);
    Append(out, static_cast<uint32_t>(tensor.type));
    Append(out, offsets[i]);
  }
  out.resize(Align(out.size(), alignment), '\0');
  return out;
}

}  // namespace

GgufWriter::GgufWriter(const std::filesystem::path& path, const std::vector<GgufEntry>& metadata,
                       const std::vector<GgufDeclaration>& tensors, uint64_t alignment)
    : TensorFileWriter([&] {
        Check(std::has_single_bit(alignment) && alignment >= 8 && alignment <= UINT32_MAX,
              "the alignment is a power of two of 8 or more");
        // Before the file is made: bad declarations leave nothing behind.
        CheckEntries(metadata);
        CheckDeclarations(tensors);
        Offsets(tensors, alignment);
        return OutputFile::Create(path);
      }()) {
  const std::vector<uint64_t> offsets = Offsets(tensors, alignment);
  const std::string header = HeaderBytes(metadata, tensors, offsets, alignment);
  for (size_t i = 0; i < tensors.size(); ++i) {
    Place(tensors[i].name, header.size() + offsets[i], tensors[i].bytes());
  }
  const uint64_t end = header.size() + offsets.back();
  file().Reserve(end);
  file().WriteAt(0, BytesOf(header));
  // Gaps between tensors read as zero without being written; the last one gives the file its size.
  if (!tensors.empty()) {
    const uint64_t unpadded = header.size() + offsets[tensors.size() - 1] + tensors.back().bytes();
    file().WriteAt(unpadded, BytesOf(std::string(end - unpadded, '\0')));
  }
}

}  // namespace quantmill
