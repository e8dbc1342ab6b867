#include "formats/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Members keep the order in which they are put in.
using OrderedJson = nlohmann::ordered_json;

[[noreturn]] void ThrowBadName(const std::string& name, const std::string& what) {
  throw Error(ErrorCode::kBadInput, "tensor '" + name + "'", what);
}

void CheckDeclarations(std::span<const TensorDeclaration> sorted) {
  std::vector<std::string_view> names;
  for (const TensorDeclaration& tensor : sorted) {
    if (tensor.name.empty() || tensor.name == "__metadata__") {
      ThrowBadName(tensor.name, "this name cannot be stored in a safetensors file");
    }
    if (FindInvalidUtf8(tensor.name)) {
      ThrowBadName(tensor.name, "the name is not valid UTF-8");
    }
    names.push_back(tensor.name);
  }
  std::sort(names.begin(), names.end());
  const auto twin = std::adjacent_find(names.begin(), names.end());
  if (twin != names.end()) ThrowBadName(std::string(*twin), "declared twice");
}

// Size, JSON and padding: what precedes the data buffer.
std::string HeaderBytes(std::span<const TensorDeclaration> sorted,
                        const std::map<std::string, std::string>& metadata) {
  OrderedJson header = OrderedJson::object();
  header["__metadata__"] = metadata;
  uint64_t begin = 0;
  for (const TensorDeclaration& tensor : sorted) {
    const uint64_t end = begin + tensor.bytes();
    if (end < begin) ThrowBadName(tensor.name, "the sizes of all tensors together overflow");
    OrderedJson entry;
    entry["dtype"] = tensor.dtype;
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {begin, end};
    // Not operator[]: an ordered object searches all its members for the key.
    header.get_ref<OrderedJson::object_t&>().emplace_back(tensor.name, std::move(entry));
    begin = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxSafetensorsHeader) {
    throw Error(ErrorCode::kBadInput, "safetensors header",
                "too many tensors for one file: use smaller shards");
  }
  const uint64_t size = text.size();
  std::string bytes(sizeof(size), '\0');
  std::memcpy(bytes.data(), &size, sizeof(size));
  return bytes + text;
}

}  // namespace

SafetensorsFile SafetensorsFile::Open(const std::filesystem::path& path) {
  MappedFile file = MappedFile::Open(path);
  SafetensorsHeader header =
      ParseSafetensorsHeader(file.bytes(), file.bytes().size(), path.string());
  file.Release(0, header.data_offset);
  return SafetensorsFile(std::move(file), std::move(header));
}

const TensorInfo* SafetensorsFile::Find(std::string_view name) const {
  const auto found =
      std::lower_bound(header_.tensors.begin(), header_.tensors.end(), name,
                       [](const TensorInfo& info, std::string_view n) { return info.name < n; });
  return found == header_.tensors.end() || found->name != name ? nullptr : &*found;
}

std::span<const std::byte> SafetensorsFile::Bytes(const TensorInfo& info) const {
  return file_.bytes().subspan(FileOffset(info), info.bytes());
}

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorDeclaration> tensors,
                                     const std::map<std::string, std::string>& metadata)
    : TensorFileWriter([&] {
        Check(!metadata.empty(), "safetensors metadata must not be empty");
        CheckDeclarations(tensors);
        std::sort(tensors.begin(), tensors.end(),
                  [](const TensorDeclaration& a, const TensorDeclaration& b) {
                    const int rank_a = RankOfSafetensorsType(a.dtype);
                    const int rank_b = RankOfSafetensorsType(b.dtype);
                    return rank_a != rank_b ? rank_a > rank_b : a.name < b.name;
                  });
        // Before the file is made: bad declarations leave nothing behind.
        for (const TensorDeclaration& tensor : tensors) tensor.bytes();
        return OutputFile::Create(path);
      }()) {
  const std::string header = HeaderBytes(tensors, metadata);
  uint64_t begin = header.size();
  for (const TensorDeclaration& tensor : tensors) {
    const uint64_t bytes = tensor.bytes();
    Place(tensor.name, begin, bytes);
    begin += bytes;
  }
  file().Reserve(begin);
  file().WriteAt(0, BytesOf(header));
}

}  // namespace quantmill
