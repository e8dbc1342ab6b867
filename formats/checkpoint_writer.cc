#include "formats/checkpoint_writer.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Declarations of each shard, filled in order.
std::vector<std::vector<TensorDeclaration>> SplitIntoShards(std::vector<TensorDeclaration> tensors,
                                                            uint64_t max_shard_bytes) {
  std::vector<std::vector<TensorDeclaration>> shards(1);
  uint64_t filled = 0;
  for (TensorDeclaration& tensor : tensors) {
    const uint64_t bytes = tensor.bytes();
    // Written as a difference: the sum could overflow.
    if (!shards.back().empty() && (filled > max_shard_bytes || bytes > max_shard_bytes - filled)) {
      shards.emplace_back();
      filled = 0;
    }
    filled += bytes;
    shards.back().push_back(std::move(tensor));
  }
  return shards;
}

std::string ShardName(size_t index, size_t count) {
  if (count == 1) return "model.safetensors";
  char name[64];
  std::snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", index + 1, count);
  return name;
}

uint64_t CheckedTotal(std::span<const TensorDeclaration> tensors) {
  std::set<std::string_view> names;
  uint64_t total = 0;
  for (const TensorDeclaration& tensor : tensors) {
    const std::string where = "tensor '" + tensor.name + "'";
    if (!names.insert(tensor.name).second) {
      throw Error(ErrorCode::kBadInput, where, "declared twice");
    }
    if (__builtin_add_overflow(total, tensor.bytes(), &total)) {
      throw Error(ErrorCode::kBadInput, where, "the sizes of all tensors together overflow");
    }
  }
  return total;
}

}  // namespace

struct CheckpointWriter::State {
  OutputFolder* folder;
  std::vector<std::string> names;                       // of the files
  std::vector<std::vector<TensorDeclaration>> pending;  // of files not yet begun, else empty
  std::vector<std::optional<SafetensorsWriter>> open;   // from the first byte to the last
  std::vector<bool> done;
  std::map<std::string, size_t, std::less<>> shard_of;
  uint64_t total = 0;
  bool finished = false;

  size_t Find(std::string_view name) const;
  SafetensorsWriter& Writer(size_t shard);
  void FinishShard(size_t shard);
};

size_t CheckpointWriter::State::Find(std::string_view name) const {
  const auto found = shard_of.find(name);
  Check(found != shard_of.end(), "tensor '" + std::string(name) + "' was not declared");
  return found->second;
}

SafetensorsWriter& CheckpointWriter::State::Writer(size_t shard) {
  Check(!done[shard], "a part was written twice: " + names[shard] + " is complete");
  if (!open[shard]) {
    open[shard].emplace(folder->path() / names[shard], std::move(pending[shard]));
  }
  return *open[shard];
}

void CheckpointWriter::State::FinishShard(size_t shard) {
  Writer(shard).Finish();
  open[shard].reset();
  done[shard] = true;
}

CheckpointWriter::CheckpointWriter(OutputFolder& folder, std::vector<TensorDeclaration> tensors,
                                   uint64_t max_shard_bytes)
    : state_(std::make_unique<State>()) {
  state_->folder = &folder;
  state_->total = CheckedTotal(tensors);
  folder.RequireSpace(state_->total);
  state_->pending = SplitIntoShards(std::move(tensors), max_shard_bytes);
  const size_t count = state_->pending.size();
  for (size_t shard = 0; shard < count; ++shard) {
    state_->names.push_back(ShardName(shard, count));
    for (const TensorDeclaration& tensor : state_->pending[shard]) {
      state_->shard_of.emplace(tensor.name, shard);
    }
  }
  state_->open.resize(count);
  state_->done.resize(count, false);
}

CheckpointWriter::CheckpointWriter(CheckpointWriter&&) noexcept = default;
CheckpointWriter& CheckpointWriter::operator=(CheckpointWriter&&) noexcept = default;
CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::Write(std::string_view name, std::span<const std::byte> bytes) {
  const size_t shard = state_->Find(name);
  // An empty tensor of a shard that other tensors have completed needs nothing.
  if (bytes.empty() && state_->done[shard]) return;
  SafetensorsWriter& writer = state_->Writer(shard);
  writer.Write(name, bytes);
  if (writer.complete()) state_->FinishShard(shard);
}

void CheckpointWriter::WriteAt(std::string_view name, uint64_t offset,
                               std::span<const std::byte> bytes) {
  const size_t shard = state_->Find(name);
  if (bytes.empty() && state_->done[shard]) return;
  SafetensorsWriter& writer = state_->Writer(shard);
  writer.WriteAt(name, offset, bytes);
  if (writer.complete()) state_->FinishShard(shard);
}

void CheckpointWriter::Finish() {
  Check(!state_->finished, "Finish called twice");
  const size_t count = state_->names.size();
  for (size_t shard = 0; shard < count; ++shard) {
    // Fails naming a tensor unless the shard is complete; a shard without bytes is made here.
    if (!state_->done[shard]) state_->FinishShard(shard);
  }
  state_->finished = true;
  if (count == 1) return;
  nlohmann::json index;
  index["metadata"]["total_size"] = state_->total;
  nlohmann::json& map = index["weight_map"] = nlohmann::json::object();
  for (const auto& [name, shard] : state_->shard_of) map[name] = state_->names[shard];
  state_->folder->WriteText("model.safetensors.index.json", index.dump(2) + "\n");
}

const std::vector<std::string>& CheckpointWriter::file_names() const { return state_->names; }
uint64_t CheckpointWriter::total_bytes() const { return state_->total; }

}  // namespace quantmill
