// Writes the weights of a model folder: model.safetensors, or shards and their index.
#ifndef QUANTMILL_FORMATS_CHECKPOINT_WRITER_H_
#define QUANTMILL_FORMATS_CHECKPOINT_WRITER_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/output_folder.h"
#include "formats/safetensors.h"

namespace quantmill {

// 5 GB as Hugging Face counts them.
inline constexpr uint64_t kDefaultShardBytes = 5'000'000'000;

// Tensors fill shards in the order of their declaration, so that one layer stays together; a tensor
// larger than max_shard_bytes has a shard of its own. Files, names and bytes depend on the
// declarations alone. A shard is synced and closed as soon as its last byte is there. Not
// thread-safe for one object.
class CheckpointWriter {
 public:
  // `folder` must outlive this object. Throws Error(kBadInput) for bad or doubled declarations,
  // Error(kEnvironment) if the disk has no room for all of them.
  CheckpointWriter(OutputFolder& folder, std::vector<TensorDeclaration> tensors,
                   uint64_t max_shard_bytes = kDefaultShardBytes);
  CheckpointWriter(CheckpointWriter&&) noexcept;
  CheckpointWriter& operator=(CheckpointWriter&&) noexcept;
  ~CheckpointWriter();

  // As SafetensorsWriter: any order, any parts, each byte once.
  void Write(std::string_view name, std::span<const std::byte> bytes);
  void WriteAt(std::string_view name, uint64_t offset, std::span<const std::byte> bytes);

  // Check fails, naming a tensor, unless all are written. Writes model.safetensors.index.json if
  // there are several shards. Mandatory.
  void Finish();

  const std::vector<std::string>& file_names() const;  // of the weights, in shard order
  uint64_t total_bytes() const;                        // of all tensors

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_CHECKPOINT_WRITER_H_
