// The rotated twin of a dense checkpoint, in a temporary folder.
#ifndef QUANTMILL_QUANT_MODEL_ROTATED_MODEL_H_
#define QUANTMILL_QUANT_MODEL_ROTATED_MODEL_H_

#include <filesystem>
#include <functional>
#include <optional>

#include "formats/output_folder.h"
#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/model/rotation.h"

namespace quantmill {

// A complete model folder of the same types, which everything else reads as any dense checkpoint:
// weights as Rotation says, each rounded once; config.json with tie_word_embeddings false; side
// files copied. It takes the disk space of the model until this object dies. Deterministic: the
// same bytes for any number of threads. Neither copyable nor movable.
class RotatedModel {
 public:
  // Called before each tensor; may throw.
  using Progress = std::function<void(int64_t done, int64_t total, const std::string& tensor)>;

  // `source`: dense; must outlive this. The folder is a hidden sibling of `beside`, which need not
  // exist. Holds one tensor in F32 while it is made. Throws what Rotation does;
  // Error(kBadInput) naming a tensor that holds NaN or infinity, or overflows its type once
  // rotated; Error(kEnvironment) where there is no room.
  RotatedModel(const ModelSource& source, const std::filesystem::path& beside, ThreadPool& pool,
               const Progress& progress);

  // original() is `source`'s; path() too, so that errors and reports name what the user named.
  const ModelSource& model() const { return *model_; }
  const Rotation& rotation() const { return rotation_; }

 private:
  Rotation rotation_;
  OutputFolder folder_;  // never committed: removed with this object
  std::optional<ModelSource> model_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_ROTATED_MODEL_H_
