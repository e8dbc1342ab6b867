// What the kernels of attention take, and how they share it out: rows (a token and a query head
// each) over blocks, keys over tiles.
#ifndef QUANTMILL_KERNELS_CUDA_ATTENTION_ARGUMENTS_H_
#define QUANTMILL_KERNELS_CUDA_ATTENTION_ARGUMENTS_H_

#include "kernels/cuda/cuda_kv.h"
#include "kernels/cuda/cuda_plan.h"
#include "kernels/cuda/device.h"

namespace quantmill::QUANTMILL_CUDA {

inline constexpr float kLog2E = 1.44269504088896341f;

// Of all rows of one launch.
struct ScoreShape {
  // scale * log2(e); with a soft cap scale / cap. Scores come out in units of log2, or of the cap.
  float query_factor;
  float cap;            // softcap * log2(e); 0: off
  const float* slopes;  // [heads]; null: off
  int window;           // 0: off
};

// Keys [lo, hi) of a tile.
struct KeyRange {
  int lo;
  int hi;
};
// Those that a row sees of the `keys` that begin at position tile_begin.
__device__ inline KeyRange VisibleKeys(int position, int window, int tile_begin, int keys) {
  const int at = position - tile_begin;
  return {window > 0 ? max(0, at - window + 1) : 0, min(keys, at + 1)};
}

// Not NaN where one of them is a number.
struct MaxOfNumbers {
  __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

struct AttentionArguments {
  const CudaBatchPlan::QueryTile* tiles;
  CudaBatchPlan::Arrays plan;
  KvLayer kv;
  ScoreShape scores;
  int group;  // query heads of a kv head
};

// Where outputs go: one of the two is set.
struct Output {
  float* f32;
  BF16* bf16;
  int64_t stride;
};

// The rows of one block, and the keys that they see.
struct RowBlock {
  CudaBatchPlan::Sequence sequence;
  int kv_head;
  int first_row;  // of the sequence: (token, head of the group)
  int rows;
  int first_position;  // of the first row
  int last_position;
  int seen_begin;  // positions [seen_begin, last_position] are seen by some row
};

__device__ inline RowBlock BlockOf(const AttentionArguments& a, int tile_rows) {
  const CudaBatchPlan::QueryTile tile = a.tiles[blockIdx.x];
  RowBlock block;
  block.sequence = a.plan.sequences[tile.sequence];
  block.kv_head = static_cast<int>(blockIdx.y);
  block.first_row = tile.first_row;
  block.rows = min(tile_rows, block.sequence.tokens * a.group - tile.first_row);
  block.first_position = block.sequence.context + block.first_row / a.group;
  block.last_position = block.sequence.context + (block.first_row + block.rows - 1) / a.group;
  const int window = a.scores.window;
  block.seen_begin = window > 0 ? max(0, block.first_position - window + 1) : 0;
  return block;
}

// Row and column of a row's head in the matrices of queries and outputs.
struct HeadAt {
  int64_t row;
  int64_t column;
  int head;
};
__device__ inline HeadAt HeadOf(const AttentionArguments& a, const RowBlock& block, int row) {
  const int in_sequence = block.first_row + row;
  const int head = block.kv_head * a.group + in_sequence % a.group;
  return {block.sequence.first_row + in_sequence / a.group, int64_t{head} * a.kv.layout.head_dim,
          head};
}

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_ATTENTION_ARGUMENTS_H_
