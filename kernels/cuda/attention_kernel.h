// The kernel of attention: softmax(q k^T) v over the paged store with a running maximum, tile by
// tile of 64 keys, F32 throughout. A file attention_<format>.cu for each format of the store
// compiles it.
//
// A block computes up to 64 rows (tokens times the query heads of one kv head) of one sequence and
// reads each tile of keys and values once for all of them, decoded to F32, through shared memory in
// chunks of 64 dimensions. A row is computed by a sequence of operations that its position,
// head_dim and the parameters fix, whatever other rows the block has: dot products run over the
// dimensions in order; the tiles that hold a key it sees are visited in order; maximum and
// rescaling are its own; the weights of a tile are summed by a fixed tree; and the output adds
// exactly the values that it sees, in order. So a token has the same bits in prefill and in decode.
//
// Bound by F32 fmaf in prefill. Where inputs and outputs are BF16, attention_mma_kernel.h takes its
// place. Tensor cores could take the products at F32's accuracy too, if operands are sums of three
// BF16 parts: mma.m16n8k16 of the six pairs of parts that matter.
//
// In decode there are only as many blocks as kv heads and sequences: bound by the latency of one
// tile after the other. Splitting the keys among blocks would need prefill to merge the same spans
// in the same order, for equal bits.
#ifndef QUANTMILL_KERNELS_CUDA_ATTENTION_KERNEL_H_
#define QUANTMILL_KERNELS_CUDA_ATTENTION_KERNEL_H_

#include "kernels/cuda/attention_arguments.h"
#include "kernels/cuda/attention_tile.h"
#include "kernels/cuda/launch.h"

namespace quantmill::QUANTMILL_CUDA {

// Queries, scaled (and rotated), to shared memory: [16 kRows][QueryStride]; positions and slopes of
// the thread's rows.
template <KvFormat format, int kRows, int kChunks>
__device__ void LoadQueries(const AttentionArguments& a, const RowBlock& block, View<const float> q,
                            AttentionRows<kRows, kChunks>& rows, SharedArray<Quad> queries) {
  const KvLayout& layout = a.kv.layout;
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int row = rows.y * kRows + r;
    const bool exists = row < block.rows;
    const HeadAt at = HeadOf(a, block, exists ? row : 0);
    rows.position[r] = exists ? block.sequence.context + (block.first_row + row) / a.group : -1;
    rows.slope[r] = a.scores.slopes != nullptr ? a.scores.slopes[at.head] * kLog2E : 0.0f;
    const float* from = q.Row(at.row) + at.column;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int d = 4 * (c * kChunkQuads + rows.x) + i;
        rows.out[r][c][i] = exists && d < layout.head_dim ? from[d] * a.scores.query_factor : 0.0f;
      }
    }
  }
  if constexpr (format == KvFormat::kInt4) rows.Rotate(layout.head_dim);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int quad = c * kChunkQuads + rows.x;
      if (quad >= layout.quads) continue;
      const float(&v)[4] = rows.out[r][c];
      queries[(rows.y * kRows + r) * QueryStride(layout.quads) + quad] =
          Quad{{v[0], v[1], v[2], v[3]}};
    }
  }
}

// One chunk of dimensions of a tile's keys (part 0) or values (part 1), decoded: [64][kTileStride].
// Keys that no row sees are zeros: their entries of the block table may not exist. All loads come
// first: they are in flight together.
template <KvFormat format>
__device__ void LoadTile(const AttentionArguments& a, const RowBlock& block, int part,
                         int tile_begin, int chunk, SharedArray<Quad> tile) {
  const KvLayout& layout = a.kv.layout;
  constexpr int kSlots = kKvBlockTokens;
  constexpr int kBlocks = kTileKeys / kSlots;
  static_assert(kAttentionThreads == kSlots * kChunkQuads && kTileKeys % kSlots == 0);
  const int slot = static_cast<int>(threadIdx.x) / kChunkQuads;
  const int column = static_cast<int>(threadIdx.x) % kChunkQuads;
  const int quad = chunk * kChunkQuads + column;
  const int32_t* blocks = a.plan.blocks + block.sequence.first_block + tile_begin / kSlots;
  KvQuad<format> loaded[kBlocks];
  float scales[kBlocks];
  const auto seen = [&](int b) {
    const int position = tile_begin + b * kSlots + slot;
    return position >= block.seen_begin && position <= block.last_position && quad < layout.quads;
  };
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
    if (!seen(b)) continue;
    const uint8_t* row = a.kv.Row(blocks[b], block.kv_head, part, slot);
    loaded[b] = reinterpret_cast<const KvQuad<format>*>(row)[quad];
    if constexpr (format == KvFormat::kInt8 || format == KvFormat::kInt4) {
      scales[b] = *a.kv.Scale(blocks[b], block.kv_head, part, slot);
    }
    if constexpr (format == KvFormat::kFp8) {
      scales[b] = (part == 0 ? a.kv.key_scales : a.kv.value_scales)[block.kv_head];
    }
  }
#pragma unroll
  for (int b = 0; b < kBlocks; ++b) {
    Quad values{};
    if (seen(b)) values = loaded[b].Values();
    if constexpr (format != KvFormat::kF32 && format != KvFormat::kBF16) {
      if (seen(b)) {
#pragma unroll
        for (int i = 0; i < 4; ++i) values.x[i] *= scales[b];
      }
    }
    tile[(b * kSlots + slot) * kTileStride + column] = values;
  }
}

template <KvFormat format, int kRows, int kChunks>
__device__ void StoreRows(const AttentionArguments& a, const RowBlock& block,
                          AttentionRows<kRows, kChunks>& rows, const Output& to) {
  const KvLayout& layout = a.kv.layout;
  if constexpr (format == KvFormat::kInt4) rows.Rotate(layout.head_dim);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float inverse = 1.0f / ReduceAcross(rows.sum[r], Sum());
    const int row = rows.y * kRows + r;
    if (row >= block.rows) continue;
    const HeadAt at = HeadOf(a, block, row);
    const int64_t begin = at.row * to.stride + at.column;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int d = 4 * (c * kChunkQuads + rows.x) + i;
        if (d >= layout.head_dim) continue;
        const float y = rows.out[r][c][i] * inverse;
        if (to.f32 != nullptr) {
          to.f32[begin + d] = y;
        } else {
          to.bf16[begin + d] = ToBF16(y);
        }
      }
    }
  }
}

// How many blocks an SM shall have registers for: one computes while another waits for its loads.
// As many as there can be without rows in local memory.
constexpr int BlocksPerSm(int rows, int chunks) {
  if (chunks > 4) return 1;
  return rows == 1 ? 3 : chunks <= 2 ? 2 : 1;
}

// A block per (tile of rows, kv head); see attention_tile.h for its threads. Shared memory: the
// queries of all rows, one chunk of keys or values, and the weights of a tile.
template <KvFormat format, int kRows, int kChunks>
__global__ void __launch_bounds__(kAttentionThreads, BlocksPerSm(kRows, kChunks))
    AttentionKernel(AttentionArguments a, View<const float> q, Output out) {
  using Rows = AttentionRows<kRows, kChunks>;
  const int quads = a.kv.layout.quads;
  const int q_stride = QueryStride(quads);
  SharedMemory shared;
  SharedArray<Quad> queries = shared.Take<Quad>(kAcross * kRows * q_stride);
  SharedArray<Quad> tile = shared.Take<Quad>(kTileKeys * kTileStride);
  SharedArray<typename Rows::Weights> weights =
      shared.Take<typename Rows::Weights>(kTileKeys * kTileStride);

  const RowBlock block = BlockOf(a, kAcross * kRows);
  Rows rows;
  rows.x = static_cast<int>(threadIdx.x) % kAcross;
  rows.y = static_cast<int>(threadIdx.x) / kAcross;
  LoadQueries<format>(a, block, q, rows, queries);
  rows.Begin();
  // Warps without a row only help to load.
  const bool active =
      static_cast<int>(threadIdx.x) / kWarp * (kWarp / kAcross) * kRows < block.rows;
  const int window = a.scores.window;

  for (int begin = block.seen_begin / kTileKeys * kTileKeys; begin <= block.last_position;
       begin += kTileKeys) {
    float scores[kRows][kKeysOfThread] = {};
    for (int chunk = 0; chunk * kChunkQuads < quads; ++chunk) {
      __syncthreads();  // the tile has been read
      LoadTile<format>(a, block, 0, begin, chunk, tile);
      __syncthreads();
      if (!active) continue;
      const int first = chunk * kChunkQuads;
      rows.AddScores(queries + (rows.y * kRows * q_stride + first), q_stride, tile,
                     min(kChunkQuads, quads - first), scores);
    }
    if (active) rows.Softmax(a.scores, begin, scores, weights);
    const bool all_seen = begin + kTileKeys <= block.first_position + 1 &&
                          (window == 0 || begin > block.last_position - window);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      if (chunk * kChunkQuads >= quads) break;
      __syncthreads();
      LoadTile<format>(a, block, 1, begin, chunk, tile);
      __syncthreads();
      if (!active) continue;
      if (all_seen) {
        rows.AddValues(weights, tile + rows.x, chunk);
      } else {
        rows.AddSeenValues(window, begin, weights, tile + rows.x, chunk);
      }
    }
  }
  if (active) StoreRows<format>(a, block, rows, out);
}

template <int kRows>
constexpr size_t SharedBytesOf(int quads) {
  return SharedBytes<Quad>(kAcross * kRows * QueryStride(quads)) +
         SharedBytes<Quad>(kTileKeys * kTileStride) +
         SharedBytes<Pack<float, kRows>>(kTileKeys * kTileStride);
}

template <KvFormat format, int kRows, int kChunks>
void LaunchRows(Exec& exec, const CudaBatchPlan& plan, AttentionArguments a, View<const float> q,
                const Output& out) {
  constexpr size_t kLeastThatDevicesHave = size_t{99} << 10;  // sm_86, sm_89
  static_assert(SharedBytesOf<kRows>(kChunks * kChunkQuads) <= kLeastThatDevicesHave);
  const CudaBatchPlan::QueryTiles tiles = plan.Tiles(exec, a.group, kAcross * kRows);
  a.tiles = tiles.tiles;
  const LaunchShape shape{tiles.count, a.kv.layout.kv_heads, kAttentionThreads,
                          SharedBytesOf<kRows>(a.kv.layout.quads)};
  Launch(exec, AttentionKernel<format, kRows, kChunks>, shape, a, q, out);
}

// A row's bits do not depend on the choice. Steps that have few rows of each sequence (decode) take
// blocks of 16: a row has more threads, and an SM more blocks to hide the latency of their loads.
// Long heads have fewer rows because queries of 64 in shared memory, and their outputs in
// registers, would not fit.
template <KvFormat format>
void LaunchAttention(Exec& exec, const CudaBatchPlan& plan, const AttentionArguments& a,
                     View<const float> q, const Output& out) {
  const int chunks = (a.kv.layout.quads + kChunkQuads - 1) / kChunkQuads;
  const bool few = plan.most_tokens() * a.group <= kAcross;
  if (chunks <= 1) {
    return few ? LaunchRows<format, 1, 1>(exec, plan, a, q, out)
               : LaunchRows<format, 4, 1>(exec, plan, a, q, out);
  }
  if (chunks <= 2) {
    return few ? LaunchRows<format, 1, 2>(exec, plan, a, q, out)
               : LaunchRows<format, 4, 2>(exec, plan, a, q, out);
  }
  if (chunks <= 4) {
    return few ? LaunchRows<format, 1, 4>(exec, plan, a, q, out)
               : LaunchRows<format, 4, 4>(exec, plan, a, q, out);
  }
  if (chunks <= 8) return LaunchRows<format, 2, 8>(exec, plan, a, q, out);
  Check(chunks <= 16, "Attention: heads of more than 1,024 elements");
  LaunchRows<format, 1, 16>(exec, plan, a, q, out);
}

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_ATTENTION_KERNEL_H_
