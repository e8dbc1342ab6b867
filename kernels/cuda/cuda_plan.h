// One step of the cuda backend: the tokens of all sequences, on the device.
#ifndef QUANTMILL_KERNELS_CUDA_CUDA_PLAN_H_
#define QUANTMILL_KERNELS_CUDA_CUDA_PLAN_H_

#include <cstdint>
#include <deque>
#include <mutex>
#include <span>
#include <vector>

#include "kernels/cuda/cuda_memory.h"
#include "kernels/ops.h"

namespace quantmill::QUANTMILL_CUDA {

// May be destroyed while kernels that read it are on a stream (CudaMemory).
class CudaBatchPlan final : public BatchPlan {
 public:
  // Of a sequence: sums of two positions fit an int.
  static constexpr int64_t kMostPositions = int64_t{1} << 30;

  // The tokens of one sequence; its block table is blocks[first_block...].
  struct Sequence {
    int32_t first_row = 0;
    int32_t tokens = 0;
    int32_t context = 0;
    int32_t first_block = 0;
  };
  // Rows of one sequence that a block of attention computes. Its rows are (token, query head of
  // the kv head), heads first: row i is token i / group, head i % group.
  struct QueryTile {
    int32_t sequence = 0;
    int32_t first_row = 0;
  };
  // Arrays in device memory.
  struct Arrays {
    const int32_t* positions;  // [tokens]
    const int32_t* slots;      // [tokens]: physical block * 16 + position % 16
    const Sequence* sequences;
    const int32_t* blocks;
  };
  struct QueryTiles {
    const QueryTile* tiles = nullptr;  // device memory
    int64_t count = 0;
  };

  CudaBatchPlan(Exec& exec, const CudaMemory& memory, std::span<const SequenceStep> steps);

  int64_t tokens() const override { return std::ssize(positions_); }
  int64_t position(int64_t row) const override { return positions_[static_cast<size_t>(row)]; }
  int64_t most_tokens() const { return most_tokens_; }  // of a sequence
  Arrays arrays() const;
  // Aborts unless every block id is one of the store's.
  void CheckBlocks(const KvShape& shape) const;

  // All rows of all sequences in tiles of `tile_rows`; those with the most keys first, so that the
  // last blocks of a launch are short. Made at the first call and kept: every layer asks again.
  QueryTiles Tiles(Exec& exec, int64_t group, int64_t tile_rows) const;

 private:
  struct Tiling {
    int64_t group = 0;
    int64_t tile_rows = 0;
    int64_t count = 0;
    Tensor tiles;
  };

  // A copy in device memory of its own, [1, n].
  Tensor CopyOf(Exec& exec, std::span<const int32_t> host) const;

  CudaMemory device_;
  std::vector<int32_t> positions_;
  std::vector<Sequence> sequences_;
  int64_t most_tokens_ = 0;
  int32_t least_block_ = 0;
  int32_t greatest_block_ = -1;
  Tensor arrays_;  // I32: positions, slots, sequences, blocks
  mutable std::mutex mutex_;
  mutable std::deque<Tiling> tilings_;
};

inline const CudaBatchPlan& PlanOf(const BatchPlan& plan) {
  return static_cast<const CudaBatchPlan&>(plan);
}

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_CUDA_PLAN_H_
