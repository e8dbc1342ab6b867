// A model as one GGUF file, or as the parts that llama-gguf-split makes of it.
#ifndef QUANTMILL_FORMATS_GGUF_MODEL_FILES_H_
#define QUANTMILL_FORMATS_GGUF_MODEL_FILES_H_

#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf.h"

namespace quantmill {

// One tensor and the file that holds it.
struct GgufPlace {
  const GgufFile* file = nullptr;
  const GgufTensor* tensor = nullptr;

  // "file: tensor 'x' (byte offset N)"
  std::string Location() const;
};

// Move-only. Const methods may be called from any thread.
class GgufModelFiles {
 public:
  // `path`: the file, or the first of the parts `<name>-00001-of-<count>.gguf`. Throws
  // Error(kBadInput): any defect of a file, another part than the first, a part that is missing or
  // belongs to another model, a tensor in two parts, fewer tensors than split.tensors.count.
  static GgufModelFiles Open(const std::filesystem::path& path);

  const GgufMetadata& metadata() const { return files_.front().metadata(); }
  const std::filesystem::path& path() const { return files_.front().file().path(); }
  std::vector<std::filesystem::path> paths() const;  // of all parts, in order
  const std::map<std::string, GgufPlace, std::less<>>& tensors() const { return tensors_; }
  // Null if there is no such tensor. The pointer lives as long as this object.
  const GgufPlace* Find(std::string_view name) const;

 private:
  explicit GgufModelFiles(std::vector<GgufFile> files);
  void CheckCount() const;

  std::vector<GgufFile> files_;  // never empty
  std::map<std::string, GgufPlace, std::less<>> tensors_;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_MODEL_FILES_H_
