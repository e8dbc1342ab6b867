// PlanBatch of the cuda backend.
#include <algorithm>
#include <functional>
#include <limits>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/cuda_plan.h"
#include "kernels/cuda/runtime.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

constexpr int64_t kIntsOfSequence = sizeof(CudaBatchPlan::Sequence) / sizeof(int32_t);

}  // namespace

Tensor CudaBatchPlan::CopyOf(Exec& exec, std::span<const int32_t> host) const {
  const auto bytes = static_cast<int64_t>(host.size_bytes());
  Tensor device = device_.Allocate(DType::kI32, 1, std::ssize(host));
  StreamOf(exec).CopyToDevice(device.view().data, bytes, host.data(), bytes, bytes, 1);
  return device;
}

CudaBatchPlan::CudaBatchPlan(Exec& exec, const CudaMemory& memory,
                             std::span<const SequenceStep> steps)
    : device_(memory) {
  std::vector<int32_t> slots;
  std::vector<int32_t> blocks;
  for (const SequenceStep& step : steps) {
    const int64_t count = CheckSequenceStep(step, tokens());
    const int64_t end = step.context + step.tokens;
    Check(end < CudaBatchPlan::kMostPositions, "PlanBatch: a sequence is too long");
    if (step.tokens == 0) continue;
    most_tokens_ = std::max(most_tokens_, step.tokens);
    sequences_.push_back({static_cast<int32_t>(tokens()), static_cast<int32_t>(step.tokens),
                          static_cast<int32_t>(step.context), static_cast<int32_t>(blocks.size())});
    for (const int32_t block : step.block_table.first(static_cast<size_t>(count))) {
      least_block_ = std::min(least_block_, block);
      greatest_block_ = std::max(greatest_block_, block);
      blocks.push_back(block);
    }
    for (int64_t at = step.context; at < end; ++at) {
      const int64_t block = step.block_table[static_cast<size_t>(at / kKvBlockTokens)];
      positions_.push_back(static_cast<int32_t>(at));
      slots.push_back(static_cast<int32_t>(block * kKvBlockTokens + at % kKvBlockTokens));
    }
  }
  constexpr int64_t kMostBlocks = std::numeric_limits<int32_t>::max() / kKvBlockTokens;
  Check(greatest_block_ < kMostBlocks, "PlanBatch: a block id is too large");
  Check(tokens() < std::numeric_limits<int32_t>::max(), "PlanBatch: too many tokens");

  std::vector<int32_t> all = positions_;
  all.insert(all.end(), slots.begin(), slots.end());
  for (const Sequence& s : sequences_) {
    all.insert(all.end(), {s.first_row, s.tokens, s.context, s.first_block});
  }
  all.insert(all.end(), blocks.begin(), blocks.end());
  arrays_ = CopyOf(exec, all);
}

CudaBatchPlan::Arrays CudaBatchPlan::arrays() const {
  const auto* positions = arrays_.Row<int32_t>(0);
  const int32_t* slots = positions + tokens();
  const int32_t* sequences = slots + tokens();
  return {positions, slots, reinterpret_cast<const Sequence*>(sequences),
          sequences + std::ssize(sequences_) * kIntsOfSequence};
}

void CudaBatchPlan::CheckBlocks(const KvShape& shape) const {
  Check(least_block_ >= 0 && greatest_block_ < shape.blocks,
        "a block table names a block outside the store");
}

CudaBatchPlan::QueryTiles CudaBatchPlan::Tiles(Exec& exec, int64_t group, int64_t tile_rows) const {
  const auto view = [](const Tiling& tiling) -> QueryTiles {
    return {reinterpret_cast<const QueryTile*>(tiling.tiles.Row<int32_t>(0)), tiling.count};
  };
  const std::lock_guard lock(mutex_);
  for (const Tiling& tiling : tilings_) {
    if (tiling.group == group && tiling.tile_rows == tile_rows) return view(tiling);
  }
  std::vector<QueryTile> tiles;
  for (size_t s = 0; s < sequences_.size(); ++s) {
    const int64_t rows = sequences_[s].tokens * group;
    Check(rows < std::numeric_limits<int32_t>::max(), "Attention: too many rows of a sequence");
    for (int64_t row = 0; row < rows; row += tile_rows) {
      tiles.push_back({static_cast<int32_t>(s), static_cast<int32_t>(row)});
    }
  }
  const auto keys = [&](const QueryTile& tile) {
    return sequences_[static_cast<size_t>(tile.sequence)].context + tile.first_row / group;
  };
  std::ranges::stable_sort(tiles, std::ranges::greater(), keys);
  std::vector<int32_t> all;
  all.reserve(2 * tiles.size());
  for (const QueryTile& tile : tiles) all.insert(all.end(), {tile.sequence, tile.first_row});
  return view(tilings_.emplace_back(group, tile_rows, std::ssize(tiles), CopyOf(exec, all)));
}

std::unique_ptr<BatchPlan> CudaBackend::PlanBatch(Exec& exec,
                                                  std::span<const SequenceStep> sequences) {
  return std::make_unique<CudaBatchPlan>(exec, memory_, sequences);
}

}  // namespace quantmill::QUANTMILL_CUDA
