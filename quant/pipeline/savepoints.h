// Finished blocks of a quantization, kept beside the output while it runs, so that a run which was
// interrupted, killed, or stopped by a full disk need not solve them again.
#ifndef QUANTMILL_QUANT_PIPELINE_SAVEPOINTS_H_
#define QUANTMILL_QUANT_PIPELINE_SAVEPOINTS_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "formats/artifact.h"
#include "formats/gguf/block_types.h"
#include "formats/kept_folder.h"
#include "formats/safetensors.h"
#include "quant/pipeline/site_solver.h"

namespace quantmill {

// A layer that is kept: by its codes and grid, or by its rows where it has blocks of GGUF.
struct SavedLayer {
  QuantizedModule module;
  std::optional<GgmlType> blocks;
};

// One finished block, opened for reading.
class SavedBlock {
 public:
  // Whatever Savepoints::Finish was given.
  const nlohmann::json& record() const { return record_; }
  // `solved.linear` or `rows`; the rest of a solution is not kept. Throws Error(kBadInput) for a
  // layer that the file does not hold so.
  LayerSolution Read(const SavedLayer& layer) const;

 private:
  friend class Savepoints;
  SavedBlock(SafetensorsFile file, nlohmann::json record)
      : file_(std::move(file)), record_(std::move(record)) {}

  SafetensorsFile file_;
  nlohmann::json record_;
};

// The hidden folder `.<name>.savepoints` beside the output:
//   identity.json            what the output depends on
//   block-00000.safetensors  the layers of a block: <module>.codes, .scales, .zero_points and
//                            .constants (global scale, scale and zero point of inputs); or .rows
//   block-00000.json         its record and the SHA-256 of the layers; put there last: a block that
//                            has one is finished
// Not thread-safe.
class Savepoints {
 public:
  // Of blocks that an earlier run left.
  enum class Earlier : uint8_t { kRefuse, kResume, kDiscard };

  // Throws as KeptFolder; for kRefuse as CheckNoSavepoints, too.
  Savepoints(const std::filesystem::path& output, Earlier earlier);
  Savepoints(const Savepoints&) = delete;
  Savepoints& operator=(const Savepoints&) = delete;
  ~Savepoints();  // finished blocks stay, unless there are none

  // Before the first block. `identity`: an object of whatever the bytes of the output depend on.
  // Throws Error(kUsage), naming what differs, where the finished blocks are of another run.
  void Begin(const nlohmann::json& identity);
  // Finished ones, in a row from the first.
  size_t blocks() const { return blocks_; }
  // Throws Error(kBadInput) if the block cannot be read.
  SavedBlock Open(size_t block) const;

  // The next block: Start, Add each layer, Finish. Throw Error(kEnvironment) from the disk.
  void Start(std::span<const SavedLayer> layers);
  bool started() const { return writer_.has_value(); }
  void Add(const SavedLayer& layer, const LayerSolution& solution);
  void Finish(const nlohmann::json& record);

  // Nothing is to be kept: the output is complete, or what failed would fail again.
  void Remove();
  const std::filesystem::path& path() const { return folder_.path(); }

 private:
  KeptFolder folder_;
  size_t blocks_ = 0;
  std::optional<SafetensorsWriter> writer_;  // between Start and Finish
};

// Throws Error(kUsage), which tells both ways on, where an earlier run left finished blocks.
void CheckNoSavepoints(const std::filesystem::path& output);

// Bytes that a layer takes there.
uint64_t SavedBytes(const SavedLayer& layer);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_SAVEPOINTS_H_
