#include <algorithm>
#include <numeric>
#include <utility>

#include "formats/gguf.h"

namespace quantmill {

GgufFile::GgufFile(MappedFile file, GgufHeader header)
    : file_(std::move(file)), header_(std::move(header)), by_name_(header_.tensors.size()) {
  std::iota(by_name_.begin(), by_name_.end(), size_t{0});
  std::sort(by_name_.begin(), by_name_.end(),
            [&](size_t a, size_t b) { return header_.tensors[a].name < header_.tensors[b].name; });
}

GgufFile GgufFile::Open(const std::filesystem::path& path) {
  MappedFile file = MappedFile::Open(path);
  GgufHeader header = ParseGgufHeader(file.bytes(), file.bytes().size(), path.string());
  return GgufFile(std::move(file), std::move(header));
}

const GgufTensor* GgufFile::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), name,
      [&](size_t index, std::string_view wanted) { return header_.tensors[index].name < wanted; });
  if (found == by_name_.end() || header_.tensors[*found].name != name) return nullptr;
  return &header_.tensors[*found];
}

}  // namespace quantmill
