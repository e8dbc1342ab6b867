// One step of the cpu backend: the tokens of all sequences, and tables that all layers share.
#ifndef QUANTMILL_KERNELS_CPU_BATCH_PLAN_H_
#define QUANTMILL_KERNELS_CPU_BATCH_PLAN_H_

#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "kernels/ops.h"

namespace quantmill::cpu {

class CpuBatchPlan : public BatchPlan {
 public:
  // The tokens of one sequence; its block table is blocks()[first_block...].
  struct Sequence {
    int64_t first_row = 0;
    int64_t tokens = 0;
    int64_t context = 0;
    int64_t first_block = 0;
  };
  // Up to 16 consecutive tokens that are stored to one physical block, from `slot` on.
  struct BlockRun {
    int64_t first_row = 0;
    int64_t tokens = 0;
    int64_t slot = 0;
    int32_t block = 0;
  };
  // Consecutive tokens of one sequence that attention computes as one task per kv head.
  struct QueryTile {
    int64_t sequence = 0;
    int64_t first_token = 0;  // of the step
    int64_t tokens = 0;
  };
  // cos, then sin, of rotary_dim / 2 angles, times the amplitude.
  struct RopeTable {
    std::vector<float> inv_freq;
    float amplitude = 1;
    std::vector<float> values;  // [entries, rotary_dim]
    int64_t first_position = 0;
    bool by_position = false;  // entry of a row: its position - first_position, or the row itself
  };

  explicit CpuBatchPlan(std::span<const SequenceStep> steps);

  int64_t tokens() const override { return static_cast<int64_t>(positions_.size()); }
  int64_t position(int64_t row) const override { return positions_[static_cast<size_t>(row)]; }
  const std::vector<Sequence>& sequences() const { return sequences_; }
  const std::vector<BlockRun>& runs() const { return runs_; }
  std::span<const int32_t> blocks() const { return blocks_; }
  // Aborts unless every block id is one of the store's.
  void CheckBlocks(const KvShape& shape) const;

  // Made at the first call with these parameters and kept: every layer asks for the same ones.
  const RopeTable& Rope(const RopeParams& params, ThreadPool& pool) const;
  // Row `row` of x: the table's entry for its position.
  const float* RopeEntry(const RopeTable& table, int64_t row) const;
  // All tokens, in tiles of `tile_tokens`; those with the most keys first, so that the threads end
  // together.
  std::span<const QueryTile> Tiles(int64_t tile_tokens) const;

 private:
  struct Tiling {
    int64_t tile_tokens = 0;
    std::vector<QueryTile> tiles;
  };

  std::vector<Sequence> sequences_;
  std::vector<BlockRun> runs_;
  std::vector<int32_t> blocks_;
  std::vector<int64_t> positions_;  // of each row
  int32_t least_block_ = 0;
  int32_t greatest_block_ = -1;
  // Deques: a reference stays valid while others are added.
  mutable std::mutex mutex_;
  mutable std::deque<RopeTable> ropes_;
  mutable std::deque<Tiling> tilings_;
};

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_BATCH_PLAN_H_
