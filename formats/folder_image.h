// A model folder that is not on disk: what a model kept in another kind of file (GGUF) would be as
// one. Checkpoint (checkpoint.h) reads it like a folder.
#ifndef QUANTMILL_FORMATS_FOLDER_IMAGE_H_
#define QUANTMILL_FORMATS_FOLDER_IMAGE_H_

#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/tensor_source.h"
#include "kernels/core/error.h"

namespace quantmill {

struct FolderImage {
  std::filesystem::path path;  // the file that was named; stands for the folder
  std::vector<std::filesystem::path> weight_files;
  nlohmann::json config;                     // config.json, an object
  std::map<std::string, std::string> files;  // beside it: name -> content
  std::map<std::string, Error> missing;      // why a file is not there, thrown to who asks for it
  std::unique_ptr<const TensorSource> tensors;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_FOLDER_IMAGE_H_
