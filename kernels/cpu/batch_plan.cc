#include "kernels/cpu/batch_plan.h"

#include <algorithm>
#include <cmath>

#include "kernels/op_checks.h"

namespace quantmill::cpu {

CpuBatchPlan::CpuBatchPlan(std::span<const SequenceStep> steps) {
  for (const SequenceStep& step : steps) {
    const int64_t count = CheckSequenceStep(step, tokens());
    if (step.tokens == 0) continue;
    const int64_t end = step.context + step.tokens;
    sequences_.push_back(
        {step.first_row, step.tokens, step.context, static_cast<int64_t>(blocks_.size())});
    const std::span<const int32_t> table = step.block_table.first(static_cast<size_t>(count));
    for (const int32_t block : table) {
      least_block_ = std::min(least_block_, block);
      greatest_block_ = std::max(greatest_block_, block);
      blocks_.push_back(block);
    }
    for (int64_t at = step.context; at < end;) {
      const int64_t slot = at % kKvBlockTokens;
      const int64_t tokens = std::min(kKvBlockTokens - slot, end - at);
      runs_.push_back({step.first_row + at - step.context, tokens, slot,
                       table[static_cast<size_t>(at / kKvBlockTokens)]});
      at += tokens;
    }
    for (int64_t at = step.context; at < end; ++at) positions_.push_back(at);
  }
}

void CpuBatchPlan::CheckBlocks(const KvShape& shape) const {
  Check(least_block_ >= 0 && greatest_block_ < shape.blocks,
        "a block table names a block outside the store");
}

const CpuBatchPlan::RopeTable& CpuBatchPlan::Rope(const RopeParams& params,
                                                  ThreadPool& pool) const {
  const std::lock_guard lock(mutex_);
  for (const RopeTable& table : ropes_) {
    if (table.amplitude == params.amplitude &&
        std::ranges::equal(table.inv_freq, params.inv_freq)) {
      return table;
    }
  }
  RopeTable& table = ropes_.emplace_back();
  table.inv_freq.assign(params.inv_freq.begin(), params.inv_freq.end());
  table.amplitude = params.amplitude;
  const auto [least, greatest] = std::ranges::minmax_element(positions_);
  const int64_t range = positions_.empty() ? 0 : *greatest - *least + 1;
  table.by_position = range > 0 && range <= tokens();
  table.first_position = table.by_position ? *least : 0;

  const int64_t entries = table.by_position ? range : tokens();
  const auto half = static_cast<int64_t>(params.inv_freq.size());
  table.values.resize(static_cast<size_t>(entries * 2 * half));
  constexpr int64_t kEntriesPerTask = 32;
  pool.ParallelFor((entries + kEntriesPerTask - 1) / kEntriesPerTask, [&](int64_t task, int) {
    const int64_t end = std::min(entries, (task + 1) * kEntriesPerTask);
    for (int64_t e = task * kEntriesPerTask; e < end; ++e) {
      const auto at =
          static_cast<float>(table.by_position ? table.first_position + e : position(e));
      float* values = table.values.data() + e * 2 * half;
      for (int64_t i = 0; i < half; ++i) {
        // The angle is a float product, as in the models' own code; its cosine is then exact.
        const double angle = at * table.inv_freq[static_cast<size_t>(i)];
        values[i] = static_cast<float>(std::cos(angle)) * table.amplitude;
        values[half + i] = static_cast<float>(std::sin(angle)) * table.amplitude;
      }
    }
  });
  return table;
}

const float* CpuBatchPlan::RopeEntry(const RopeTable& table, int64_t row) const {
  const int64_t entry = table.by_position ? position(row) - table.first_position : row;
  return table.values.data() + entry * 2 * static_cast<int64_t>(table.inv_freq.size());
}

std::span<const CpuBatchPlan::QueryTile> CpuBatchPlan::Tiles(int64_t tile_tokens) const {
  const std::lock_guard lock(mutex_);
  for (const Tiling& tiling : tilings_) {
    if (tiling.tile_tokens == tile_tokens) return tiling.tiles;
  }
  Tiling& tiling = tilings_.emplace_back();
  tiling.tile_tokens = tile_tokens;
  for (size_t s = 0; s < sequences_.size(); ++s) {
    for (int64_t t = 0; t < sequences_[s].tokens; t += tile_tokens) {
      tiling.tiles.push_back(
          {static_cast<int64_t>(s), t, std::min(tile_tokens, sequences_[s].tokens - t)});
    }
  }
  const auto cost = [this](const QueryTile& tile) {
    const Sequence& sequence = sequences_[static_cast<size_t>(tile.sequence)];
    return tile.tokens * (sequence.context + tile.first_token + tile.tokens);
  };
  std::ranges::stable_sort(tiling.tiles, std::ranges::greater(), cost);
  return tiling.tiles;
}

}  // namespace quantmill::cpu
