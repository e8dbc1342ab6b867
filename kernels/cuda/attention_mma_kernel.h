// Attention on tensor cores: queries, keys, values and weights in BF16, scores and sums in F32. A
// file attention_mma_<dims>.cu for each padded length of a head compiles it.
//
// A block computes rows (tokens times the query heads of one kv head) of one sequence, 16 or 32 of
// them a warp; their outputs stay in registers. It visits keys tile by tile, with a running
// maximum. Keys and values of a tile are copied from the paged store to shared memory while the
// tile before is multiplied: there is room for two of each. (The scheme is FlashAttention-2's:
// Dao 2023, arXiv 2307.08691.)
//
// A row is computed by a sequence of operations that its position and the tiling's keys fix,
// whatever other rows the block has: a tile that it sees nothing of adds weights of 0 and rescales
// by 1. So a token has the same bits in prefill and in decode.
#ifndef QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_KERNEL_H_
#define QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_KERNEL_H_

#include "kernels/cuda/attention_arguments.h"
#include "kernels/cuda/attention_mma_tile.h"
#include "kernels/cuda/attention_mma_tiling.h"
#include "kernels/cuda/launch.h"

namespace quantmill::QUANTMILL_CUDA {

// Starts to copy keys (part 0) or values (part 1) of one tile: [kKeys] rows of octets. Keys that no
// row of the block sees are zeros (their entries of the block table may not exist), and so are
// dimensions past head_dim.
template <int kDims, int kKeys, int kThreads>
__device__ void CopyTile(const AttentionArguments& a, const RowBlock& block, int part,
                         int tile_begin, SharedArray<Octet> to, AsyncCopies& copies) {
  constexpr int kOctets = kDims / kOctet;
  constexpr int kSlots = kKvBlockTokens;
  static_assert(kKeys * kOctets % kThreads == 0);
  const int32_t* blocks = a.plan.blocks + block.sequence.first_block + tile_begin / kSlots;
#pragma unroll 4
  for (int i = Recomputed(static_cast<int>(threadIdx.x)); i < kKeys * kOctets; i += kThreads) {
    const int key = i / kOctets;
    const int octet = i % kOctets;
    const int position = tile_begin + key;
    const bool exists = position >= block.seen_begin && position <= block.last_position &&
                        octet * kOctet < a.kv.layout.head_dim;
    const auto* from = reinterpret_cast<const Octet*>(a.kv.blocks);
    if (exists) {
      const uint8_t* row = a.kv.Row(blocks[key / kSlots], block.kv_head, part, key % kSlots);
      from = reinterpret_cast<const Octet*>(row) + octet;
    }
    copies.Copy(to + OctetTile<kOctets>::At(key, octet), from, exists);
  }
}

// Of a BF16 in the low half.
__device__ inline bool IsFinite(uint32_t bits) { return (bits & 0x7F80) != 0x7F80; }

// NaN and infinite values of a tile become 0: those that this thread copied. Returns whether there
// were any. (A key that a row does not see has weight 0, which would not silence them.)
template <int kDims, int kKeys, int kThreads>
__device__ bool TakeOutNotFinite(SharedArray<Octet> values) {
  constexpr int kOctets = kDims / kOctet;
  bool found = false;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kOctets; i += kThreads) {
    const int at = OctetTile<kOctets>::At(i / kOctets, i % kOctets);
    Octet octet = values[at];
    bool finite = true;
#pragma unroll
    for (uint32_t& pair : octet.pairs) {
      finite = finite && IsFinite(pair) && IsFinite(pair >> 16);
      if (!IsFinite(pair)) pair &= 0xFFFF0000u;
      if (!IsFinite(pair >> 16)) pair &= 0x0000FFFFu;
    }
    if (!finite) values[at] = octet;
    found |= !finite;
  }
  return found;
}

// Queries, scaled and rounded, to shared memory: [kRows] rows of octets.
template <int kDims, int kRows, int kThreads>
__device__ void StoreQueries(const AttentionArguments& a, const RowBlock& block,
                             View<const float> q, SharedArray<Octet> queries) {
  constexpr int kOctets = kDims / kOctet;
#pragma unroll 1  // more loads at once than registers else
  for (int i = static_cast<int>(threadIdx.x); i < kRows * kOctets; i += kThreads) {
    const int row = i / kOctets;
    const int first = i % kOctets * kOctet;
    Octet octet{};
    if (row < block.rows && first < a.kv.layout.head_dim) {
      const HeadAt at = HeadOf(a, block, row);
      const float* from = q.Row(at.row) + at.column + first;
      const float factor = a.scores.query_factor;
#pragma unroll
      for (int pair = 0; pair < kOctet / 2; ++pair) {
        octet.pairs[pair] = PairBF16(from[2 * pair] * factor, from[2 * pair + 1] * factor);
      }
    }
    queries[OctetTile<kOctets>::At(row, i % kOctets)] = octet;
  }
}

__device__ inline WarpRows WarpRowsOf(const AttentionArguments& a, const RowBlock& block,
                                      int rows_of_warp) {
  WarpRows rows;
  rows.first_row = static_cast<int>(threadIdx.x) / kWarp * rows_of_warp;
  const int in_sequence = block.first_row + rows.first_row;
  const int last = min(rows.first_row + rows_of_warp, block.rows) - 1;
  rows.first_position = block.sequence.context + in_sequence / a.group;
  rows.last_position = rows.first_row < block.rows
                           ? block.sequence.context + (block.first_row + last) / a.group
                           : -1;
  rows.group = a.group;
  rows.row_offset = in_sequence % a.group;
  rows.first_head = block.kv_head * a.group;
  return rows;
}

template <int kDims, int kKeys, int kRowTiles>
__device__ void StoreOutputs(const AttentionArguments& a, const RowBlock& block,
                             const MmaRows<kDims, kKeys, kRowTiles>& warp, View<BF16> out) {
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float inverse = 1.0f / warp.ReduceRow(warp.sum[r][half], Sum());
      const int row = warp.rows.first_row + warp.RowOf(r, half);
      if (row >= block.rows) continue;
      const HeadAt at = HeadOf(a, block, row);
      BF16* to = out.Row(at.row) + at.column + warp.FirstKey();  // dimensions lie as keys do
#pragma unroll
      for (int d = 0; d < kDims / kOctet; ++d) {
        if (d * kOctet >= a.kv.layout.head_dim) break;
        const uint32_t pair =
            PairBF16(warp.out[r][d][2 * half] * inverse, warp.out[r][d][2 * half + 1] * inverse);
        to[d * kOctet] = BF16{static_cast<uint16_t>(pair & 0xFFFF)};
        to[d * kOctet + 1] = BF16{static_cast<uint16_t>(pair >> 16)};
      }
    }
  }
}

// Adds what TakeOutNotFinite took out to the stored outputs of the rows that see it: what a NaN or
// an infinity is added to does not matter, nor by which weight it is multiplied. Rare, so it is
// done after the main loop, of whose registers it takes none.
__device__ inline void AddNotFinite(const AttentionArguments& a, const RowBlock& block,
                                    int first_row, int rows, View<BF16> out) {
  constexpr int kSlots = kKvBlockTokens;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int32_t* blocks = a.plan.blocks + block.sequence.first_block;
  for (int row = first_row; row < min(first_row + rows, block.rows); ++row) {
    const HeadAt at = HeadOf(a, block, row);
    BF16* to = out.Row(at.row) + at.column;
    const int position = block.sequence.context + (block.first_row + row) / a.group;
    const int begin = a.scores.window > 0 ? max(0, position - a.scores.window + 1) : 0;
    for (int d = lane; d < a.kv.layout.head_dim; d += kWarp) {
      float sum = ToFloat(to[d]);
#pragma unroll 1
      for (int key = begin; key <= position; ++key) {
        const uint8_t* values = a.kv.Row(blocks[key / kSlots], block.kv_head, 1, key % kSlots);
        const BF16 value = reinterpret_cast<const BF16*>(values)[d];
        if (!IsFinite(value.bits)) sum += ToFloat(value);
      }
      to[d] = ToBF16(sum);
    }
  }
}

// Whether any thread of the block says so. flags: one a warp.
template <int kWarps>
__device__ bool AnyOfBlock(bool mine, SharedArray<int32_t> flags) {
  const bool of_warp = __ballot_sync(kAllLanes, mine) != 0;
  if (threadIdx.x % kWarp == 0) flags[threadIdx.x / kWarp] = of_warp ? 1 : 0;
  __syncthreads();
  int32_t any = 0;
  for (int w = 0; w < kWarps; ++w) {
    const int32_t flag = flags[w];
    any |= flag;
  }
  return any != 0;
}

// A block per (tile of rows, kv head). Shared memory: the queries, then two tiles of keys and two
// of values, which take turns, and a flag a warp.
template <int kDims, int kRowTiles, int kKeys, int kWarps>
__global__ void __launch_bounds__(kWarps* kWarp)
    MmaAttentionKernel(AttentionArguments a, View<const float> q, View<BF16> out) {
  constexpr int kOctets = kDims / kOctet;
  constexpr int kRows = kWarps * kRowTiles * kMmaRows;
  constexpr int kThreads = kWarps * kWarp;
  constexpr int kTile = kKeys * kOctets;
  using Rows = MmaRows<kDims, kKeys, kRowTiles>;
  SharedMemory shared;
  SharedArray<Octet> queries = shared.Take<Octet>(kRows * kOctets);
  SharedArray<Octet> keys = shared.Take<Octet>(2 * kTile);
  SharedArray<Octet> values = shared.Take<Octet>(2 * kTile);
  SharedArray<int32_t> flags = shared.Take<int32_t>(kWarps);

  const RowBlock block = BlockOf(a, kRows);
  const int window = a.scores.window;
  AsyncCopies copies;
  const auto copy_tile = [&](int part, int begin, SharedArray<Octet> to) {
    if (begin <= block.last_position) {
      CopyTile<kDims, kKeys, kThreads>(a, block, part, begin, to, copies);
    }
    copies.Commit();
  };
  // Whether all rows from one position to another see all of a tile.
  const auto all_seen = [&](int begin, int first_position, int last_position) {
    return begin + kKeys <= first_position + 1 && (window == 0 || begin > last_position - window);
  };
  int begin = block.seen_begin / kKeys * kKeys;
  copy_tile(0, begin, keys);
  copy_tile(1, begin, values);
  StoreQueries<kDims, kRows, kThreads>(a, block, q, queries);

  Rows warp;
  warp.lane = static_cast<int>(threadIdx.x) % kWarp;
  warp.rows = WarpRowsOf(a, block, kRowTiles * kMmaRows);
  warp.Begin();
  bool taken_out = false;
  for (int turn = 0; begin <= block.last_position; begin += kKeys, turn ^= 1) {
    const int this_tile = turn * kTile;
    const int other_tile = kTile - this_tile;
    const bool sees_some = begin <= warp.rows.last_position;
    typename Rows::Weights weights;
    warp.lane = Recomputed(warp.lane);

    copies.Wait<1>();  // for the keys
    __syncthreads();   // which all have, and nobody reads the other tile of keys any more
    copy_tile(0, begin + kKeys, keys + other_tile);
    if (sees_some) {
      typename Rows::Scores scores;
      warp.Multiply(queries + warp.rows.first_row * kOctets, keys + this_tile, scores);
      if (a.scores.cap > 0) warp.Cap(a.scores.cap, scores);
      if (a.scores.slopes != nullptr) warp.Shift(a.scores.slopes, begin, scores);
      if (!all_seen(begin, warp.rows.first_position, warp.rows.last_position)) {
        warp.Mask(window, begin, scores);
      }
      warp.Softmax(scores, weights);
    }

    copies.Wait<1>();  // for the values
    if (!all_seen(begin, block.first_position, block.last_position)) {
      taken_out |= TakeOutNotFinite<kDims, kKeys, kThreads>(values + this_tile);
    }
    __syncthreads();
    copy_tile(1, begin + kKeys, values + other_tile);
    if (sees_some) warp.AddValues(weights, values + this_tile);
  }
  copies.Wait<0>();
  StoreOutputs(a, block, warp, out);
  if (AnyOfBlock<kWarps>(taken_out, flags)) {
    AddNotFinite(a, block, warp.rows.first_row, kRowTiles * kMmaRows, out);
  }
}

// out: BF16.  tiling: one that ChooseMmaTiling gives on some architecture, of kDims.
template <int kDims>
void LaunchMmaAttention(Exec& exec, const CudaBatchPlan& plan, AttentionArguments a,
                        const MmaTiling& tiling, View<const float> q, View<BF16> out) {
  const CudaBatchPlan::QueryTiles tiles = plan.Tiles(exec, a.group, tiling.rows());
  a.tiles = tiles.tiles;
  const LaunchShape shape{tiles.count, a.kv.layout.kv_heads, tiling.threads(),
                          tiling.shared_bytes()};
  bool launched = false;
  const auto launch_if = [&]<int kRowTiles, int kKeys, int kWarps>() {
    constexpr MmaTiling kTiling{kDims, kRowTiles, kKeys, kWarps};
    if constexpr (IsMmaTilingChosen(kTiling)) {
      if (tiling != kTiling) return;
      Launch(exec, MmaAttentionKernel<kDims, kRowTiles, kKeys, kWarps>, shape, a, q, out);
      launched = true;
    }
  };
  launch_if.template operator()<2, 64, 4>();
  launch_if.template operator()<1, 64, 4>();
  launch_if.template operator()<2, 32, 4>();
  launch_if.template operator()<1, 32, 4>();
  launch_if.template operator()<1, 64, 1>();
  launch_if.template operator()<1, 32, 1>();
  Check(launched, "Attention: no kernel has this tiling");
}

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_KERNEL_H_
