// A model folder as Hugging Face lays it out: config.json, one or several safetensors files, and
// side files (tokenizer and so on). Bytes and names only: no knowledge of architectures.
#ifndef QUANTMILL_FORMATS_CHECKPOINT_H_
#define QUANTMILL_FORMATS_CHECKPOINT_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/safetensors.h"
#include "formats/tensor_source.h"
#include "kernels/core/matrix.h"

namespace quantmill {

struct FolderImage;

// Files of a model folder that an output takes over byte for byte, and what is left behind.
struct SideFiles {
  std::vector<std::string> copied;   // names in the folder, sorted
  std::vector<std::string> skipped;  // "name: reason" (subfolder, dangling link, other weights...)
};

// Move-only. Const methods may be called from any thread. Bytes and views live until the object
// dies, or until Release of that tensor if it had to be copied (see View) or computed.
class Checkpoint {
 public:
  // `model`: a folder, or the id `org/name` of a model already in the local Hugging Face cache
  // ($HF_HUB_CACHE, $HF_HOME/hub, ~/.cache/huggingface/hub); a folder wins. Opens and checks the
  // headers of all weight files; tensor data is read when first touched. Throws Error(kBadInput):
  // neither of the two; no config.json or weights; index and files disagree (missing file, missing,
  // doubled or unlisted tensor, a path that leaves the folder); any defect of a file.
  static Checkpoint Open(const std::string& model);
  // Its tensors are computed when they are first asked for, and kept until Release.
  static Checkpoint OfImage(FolderImage image);

  Checkpoint(Checkpoint&&) noexcept;
  Checkpoint& operator=(Checkpoint&&) noexcept;
  ~Checkpoint();

  const nlohmann::json& config() const;         // config.json, an object
  const std::filesystem::path& folder() const;  // absolute; an image's path, which is a file
  bool is_image() const;
  const std::vector<std::string>& names() const;                   // of all tensors, sorted
  const std::vector<std::filesystem::path>& weight_files() const;  // absolute, in shard order
  uint64_t total_bytes() const;                                    // of all tensors, as stored

  bool Has(std::string_view name) const;
  // Info, Bytes, View, Location and Release throw Error(kBadInput) naming a tensor that is missing.
  const TensorInfo& Info(std::string_view name) const;
  // As stored; no alignment is promised.
  std::span<const std::byte> Bytes(std::string_view name) const;
  // Calls visit(offset in the tensor, bytes) for pieces of at most kPieceBytes (or one row, if that
  // is more), in order, and gives each back to the system afterwards: the tensor is never in memory
  // as a whole. Not at all for an empty tensor.
  using VisitPiece = std::function<void(uint64_t offset, std::span<const std::byte> bytes)>;
  void ForEachPiece(std::string_view name, const VisitPiece& visit) const;
  // Rows [row, row + count), count > 0, of a tensor of one (then row 0) or two dimensions; `to`:
  // exactly their bytes.
  void ReadRows(std::string_view name, int64_t row, int64_t count, std::span<std::byte> to) const;
  // Of an image: as its file holds the tensor; else its dtype and bytes.
  StoredTensor Stored(std::string_view name) const;
  // [rows, cols] of a 2-D tensor, [1, n] of a 1-D one; F32, F16 or BF16, else Error(kBadInput).
  // Aligned to its element size: where the file is not, this is a copy, made once and kept until
  // Release(name).
  ConstMatrix View(std::string_view name) const;
  // "file: tensor 'x' (byte offset N)", for Error::where.
  std::string Location(std::string_view name) const;
  // Gives the tensor's pages back to the system (and frees its aligned copy, if one was made).
  void Release(std::string_view name) const;

  // config.json, weights and their index are not listed: an output writes its own.
  SideFiles other_files() const;
  // The content of a file beside config.json (tokenizer.json...); nothing if there is none. Throws
  // Error(kBadInput) if it cannot be read or is larger than any file of text.
  std::optional<std::string> ReadFile(const std::string& name) const;
  bool HasFile(const std::string& name) const;
  std::string PathOf(const std::string& name) const;  // of such a file, for messages

 private:
  static constexpr size_t kPieceBytes = size_t{16} << 20;

  struct State;
  explicit Checkpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Whether `text` can be the id of a model on the hub: `name` or `org/name`.
bool IsHubId(std::string_view text);
// Folder of the snapshot `main` of model `id` in the local Hugging Face cache, if it is there.
std::optional<std::filesystem::path> FindInHubCache(const std::string& id);
// The cache folder that the environment names (it need not exist).
std::filesystem::path HubCacheFolder();

// Index (row-major, r * cols + c) of the first NaN or infinity of an F32, F16 or BF16 matrix.
// Reads at memory speed.
std::optional<int64_t> FindNonFinite(ConstMatrix matrix);
// The same of a tensor of any shape; nothing for other types. Reads it piece by piece.
std::optional<int64_t> FindNonFinite(const Checkpoint& checkpoint, const std::string& tensor);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_CHECKPOINT_H_
