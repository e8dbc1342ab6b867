#include "formats/gguf/model_files.h"

#include <cstdio>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr uint64_t kMostParts = 99999;  // their numbers have five digits

[[noreturn]] void ThrowBad(const std::filesystem::path& where, const std::string& what) {
  throw Error(ErrorCode::kBadInput, where.string(), what);
}

std::string PartSuffix(uint64_t number, uint64_t count) {
  char text[64];
  std::snprintf(text, sizeof(text), "-%05u-of-%05u.gguf", static_cast<unsigned>(number),
                static_cast<unsigned>(count));
  return text;
}

// The other parts of the model whose first part is `first`.
void OpenOtherParts(std::vector<GgufFile>& files, uint64_t count) {
  const std::filesystem::path first = files.front().file().path();
  const std::string name = first.filename().string();
  const std::string suffix = PartSuffix(1, count);
  if (!name.ends_with(suffix)) {
    ThrowBad(first, "is the first of " + std::to_string(count) +
                        " parts, but its name does not end in " + suffix +
                        ": the others cannot be found");
  }
  const std::string stem = name.substr(0, name.size() - suffix.size());
  files.reserve(count);
  for (uint64_t number = 2; number <= count; ++number) {
    const std::filesystem::path path = first.parent_path() / (stem + PartSuffix(number, count));
    if (!std::filesystem::exists(path)) {
      ThrowBad(path, "is missing: part " + std::to_string(number) + " of " + std::to_string(count) +
                         "; the download may be incomplete");
    }
    files.push_back(GgufFile::Open(path));
    const GgufMetadata& metadata = files.back().metadata();
    if (metadata.Unsigned("split.no") != number - 1 || metadata.Unsigned("split.count") != count) {
      ThrowBad(path, "does not say that it is part " + std::to_string(number) + " of " +
                         std::to_string(count) + ": it belongs to another model");
    }
  }
}

}  // namespace

std::string GgufPlace::Location() const {
  return file->file().path().string() + ": tensor '" + tensor->name + "' (byte offset " +
         std::to_string(tensor->offset) + ")";
}

GgufModelFiles::GgufModelFiles(std::vector<GgufFile> files) : files_(std::move(files)) {
  for (const GgufFile& file : files_) {
    for (const GgufTensor& tensor : file.tensors()) {
      const auto [place, inserted] = tensors_.emplace(tensor.name, GgufPlace{&file, &tensor});
      if (!inserted) {
        ThrowBad(file.file().path(), "tensor '" + tensor.name + "' is also in " +
                                         place->second.file->file().path().filename().string());
      }
    }
  }
}

void GgufModelFiles::CheckCount() const {
  const std::optional<uint64_t> wanted = metadata().Unsigned("split.tensors.count");
  if (!wanted || *wanted == tensors_.size()) return;
  ThrowBad(path(), "metadata key 'split.tensors.count' is " + std::to_string(*wanted) +
                       ", but the parts hold " + std::to_string(tensors_.size()) + " tensors");
}

GgufModelFiles GgufModelFiles::Open(const std::filesystem::path& path) {
  std::vector<GgufFile> files;
  files.push_back(GgufFile::Open(path));
  const uint64_t count = files.front().metadata().Unsigned("split.count").value_or(1);
  const uint64_t number = files.front().metadata().Unsigned("split.no").value_or(0);
  if (count > kMostParts) ThrowBad(path, "metadata key 'split.count' is " + std::to_string(count));
  if (number != 0) {
    ThrowBad(path, "is part " + std::to_string(number + 1) + " of " + std::to_string(count) +
                       " of a model: give the first part");
  }
  if (count > 1) OpenOtherParts(files, count);
  GgufModelFiles model(std::move(files));
  model.CheckCount();
  return model;
}

std::vector<std::filesystem::path> GgufModelFiles::paths() const {
  std::vector<std::filesystem::path> paths;
  paths.reserve(files_.size());
  for (const GgufFile& file : files_) paths.push_back(file.file().path());
  return paths;
}

const GgufPlace* GgufModelFiles::Find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : &found->second;
}

}  // namespace quantmill
