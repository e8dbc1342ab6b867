#include "tools/weights.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <vector>

namespace quantmill {

std::string DescribeWeights(const ModelSource& source) {
  if (source.checkpoint().is_image()) return StoredTypes(source.checkpoint());
  if (source.artifact() == nullptr) return "dense " + std::string(NameOf(source.dense_dtype()));
  std::vector<std::string> schemes;
  for (const LinearSpec* linear : source.spec().Linears()) {
    const auto scheme = source.SchemeOf(*linear);
    const std::string name = scheme ? Describe(*scheme) : "dense";
    if (std::find(schemes.begin(), schemes.end(), name) == schemes.end()) schemes.push_back(name);
  }
  std::string text(source.artifact()->format());
  for (const std::string& scheme : schemes) text += ", " + scheme;
  return text;
}

uint64_t WeightFileBytes(const ModelSource& source) {
  uint64_t bytes = 0;
  for (const std::filesystem::path& file : source.checkpoint().weight_files()) {
    std::error_code ignored;  // the file is open: its size is known
    bytes += std::filesystem::file_size(file, ignored);
  }
  return bytes;
}

}  // namespace quantmill
