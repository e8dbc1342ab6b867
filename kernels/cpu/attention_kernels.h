// Attention of the cpu backend: the layout of a cached block, and the kernels compiled once per
// instruction set.
#ifndef QUANTMILL_KERNELS_CPU_ATTENTION_KERNELS_H_
#define QUANTMILL_KERNELS_CPU_ATTENTION_KERNELS_H_

#include <cstdint>

#include "kernels/core/kv_format.h"
#include "kernels/cpu/isa.h"

namespace quantmill::cpu {

inline constexpr int kBlockKeys = 16;  // kKvBlockTokens
inline constexpr int kTileBlocks = 4;
// Keys between two rescalings of the running softmax; tiles begin at multiples of it.
inline constexpr int kTileKeys = kBlockKeys * kTileBlocks;

// One (layer, physical block, kv head) holds K, V, then the scales of integers:
//   K transposed, [head_dim][16]: 16 keys of one dimension are one vector, so q . k of 16 keys is a
//   sum of vectors, without sums across lanes;
//   V as [16][PaddedDim(head_dim)]: the output is a sum of rows;
//   kInt8, kInt4: [16] F32 of K, [16] F32 of V: code * scale is the element.
// kInt4 codes lie in nibbles, + 8: of a row of 2n elements, byte i holds element i in its low half
// and element i + n in its high half. K rows have 16 elements. The padding of V is 0. Slots that
// no token was stored to hold anything, NaN included.
// (static: a shared inline copy could end up compiled for another instruction set.)
static constexpr int64_t PaddedDim(int64_t head_dim) { return (head_dim + 15) / 16 * 16; }
static constexpr int64_t ElementBits(KvFormat format) {
  return format == KvFormat::kF32    ? 32
         : format == KvFormat::kBF16 ? 16
         : format == KvFormat::kInt4 ? 4
                                     : 8;
}
static constexpr bool HasTokenScales(KvFormat format) {
  return format == KvFormat::kInt8 || format == KvFormat::kInt4;
}
static constexpr int64_t KeyBytes(KvFormat format, int64_t head_dim) {
  return kBlockKeys * head_dim * ElementBits(format) / 8;
}
static constexpr int64_t ValueBytes(KvFormat format, int64_t head_dim) {
  return kBlockKeys * PaddedDim(head_dim) * ElementBits(format) / 8;
}
static constexpr int64_t HeadBytes(KvFormat format, int64_t head_dim) {
  return KeyBytes(format, head_dim) + ValueBytes(format, head_dim) +
         (HasTokenScales(format) ? 2 * kBlockKeys * 4 : 0);
}
// A kInt4 head is rotated in a buffer of fixed size.
static constexpr int64_t kMaxRotatedDim = 1024;

// The queries of one task: `tokens` consecutive tokens of one sequence times the `group` query
// heads that share a kv head.
struct AttentionTask {
  const float* q = nullptr;  // first token, first head of the group
  int64_t q_stride = 0;      // floats from one token to the next; heads follow each other
  void* out = nullptr;       // like q
  int64_t out_stride = 0;    // elements
  bool out_bf16 = false;
  int64_t tokens = 0;
  int64_t first_position = 0;  // of the first token
  int64_t group = 0;
  int64_t head_dim = 0;
  float scale = 0;
  float softcap = 0;
  const float* alibi_slopes = nullptr;  // [group]; null: off
  int64_t sliding_window = 0;

  const void* cache = nullptr;  // the layer's first block, at this kv head
  int64_t block_stride = 0;     // bytes from one physical block to the next
  KvFormat format = KvFormat::kF32;
  float key_scale = 1;  // kFp8 alone
  float value_scale = 1;
  const int32_t* block_table = nullptr;  // of the sequence, from position 0
  float* scratch = nullptr;              // AttentionScratch() floats, 64-byte aligned
};

// Floats of scratch for `rows` = tokens * group.
static constexpr int64_t AttentionScratch(int64_t rows, int64_t head_dim) {
  const int64_t padded = PaddedDim(head_dim);
  return rows * (padded + padded + kTileKeys + 16 + 16) + kTileKeys * 2 * padded;
}

// One token run of at most 16 tokens that falls into one block.
struct AppendTask {
  const float* k = nullptr;  // [tokens, kv_heads * head_dim]
  const float* v = nullptr;
  int64_t k_stride = 0;
  int64_t v_stride = 0;
  int64_t tokens = 0;
  int64_t slot = 0;  // of the first token, in [0, 16)
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  KvFormat format = KvFormat::kF32;
  const float* key_scales = nullptr;  // [kv_heads]; kFp8 alone
  const float* value_scales = nullptr;
  void* block = nullptr;  // the block's first kv head
};

struct AttentionKernels {
  // Each row (token, head) is computed by a sequence of operations that its position, head_dim and
  // the parameters fix, whatever other rows the task has: its dot products run over the dimensions
  // in order; the tiles that hold a key it sees are visited in order; maximum and rescaling are
  // decided by the row's own scores; and the output adds exactly the values it sees, in order.
  void (*attend)(const AttentionTask& task);
  void (*append)(const AppendTask& task);
};

QUANTMILL_DECLARE_ISA_TABLE(AttentionKernels, kAttentionKernels);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_ATTENTION_KERNELS_H_
