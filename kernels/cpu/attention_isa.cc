// Attention over the paged cache: softmax(q k^T) v with a running maximum, tile by tile of 64 keys.
//
// A task keeps its queries, running maxima, sums and outputs in scratch (they fit the second-level
// cache) and reads each tile of keys and values once for all its rows. Rows are computed six at a
// time: six rows by four vectors are 24 accumulators, which hides the latency of FMA and leaves
// registers for the operands.
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/kv_codec.h"
#include "kernels/cpu/simd_math.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

constexpr int kMaxRows = 6;
constexpr int kMaxCols = kLanes == 16 ? 4 : 2;  // vectors; AVX2 and SSE have 16 registers
constexpr int kTileVecs = kTileKeys / kLanes;
constexpr int64_t kPrefetchTokens = 4;
constexpr float kLog2E = 1.44269504088896341f;
constexpr float kLowest = -0x1.fffffep127f;

constexpr int64_t Min(int64_t a, int64_t b) { return b < a ? b : a; }
constexpr int64_t Max(int64_t a, int64_t b) { return b > a ? b : a; }

// ---- the two matrix products ----

// s[r][c] = sum_d q[r][d] * k[c][d], c counting vectors of keys. q: [R][head_dim].
template <int R, int C>
void ScoreBlock(const float* q, int64_t head_dim, const float* const* k, float* s) {
  Vec acc[R][C] = {};
  for (int64_t d = 0; d < head_dim; ++d) {
    Vec keys[C];
#pragma GCC unroll 4
    // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): the caller sets C of k
    for (int c = 0; c < C; ++c) keys[c] = Load(k[c] + d * kBlockKeys);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
      const Vec query = Broadcast(q + r * head_dim + d);
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) acc[r][c] = Fma(query, keys[c], acc[r][c]);
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) Store(s + r * kTileKeys + c * kLanes, acc[r][c]);
  }
}

// Scores of the tile's vectors [begin, end). blocks: K of each block of the tile. s: [R][64].
template <int R>
void ScoreRows(const float* q, int64_t head_dim, const float* const* blocks, int64_t begin,
               int64_t end, float* s) {
  for (int64_t v = begin; v < end;) {
    const float* k[kMaxCols];
    const int64_t cols = Min(end - v, kMaxCols);
    for (int64_t c = 0; c < cols; ++c) {
      const int64_t key = (v + c) * kLanes;
      k[c] = blocks[key / kBlockKeys] + key % kBlockKeys;
    }
    if (cols == kMaxCols) {
      ScoreBlock<R, kMaxCols>(q, head_dim, k, s + v * kLanes);
      v += kMaxCols;
    } else if (cols >= 2) {
      ScoreBlock<R, 2>(q, head_dim, k, s + v * kLanes);
      v += 2;
    } else {
      ScoreBlock<R, 1>(q, head_dim, k, s + v * kLanes);
      v += 1;
    }
  }
}

// o[r][c] += sum over keys in [begin, end), in order, of p[r][key] * v[key][c].
template <int R, int C>
void ValueBlock(const float* p, const float* const* blocks, int64_t stride, int64_t begin,
                int64_t end, float* o) {
  Vec acc[R][C];
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) acc[r][c] = Load(o + r * stride + c * kLanes);
  }
  for (int64_t key = begin; key < end;) {
    const float* v = blocks[key / kBlockKeys] + (key % kBlockKeys) * stride;
    const int64_t stop = Min(end, (key / kBlockKeys + 1) * kBlockKeys);
    for (; key < stop; ++key, v += stride) {
      Vec values[C];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) values[c] = Load(v + c * kLanes);
#pragma GCC unroll 6
      for (int r = 0; r < R; ++r) {
        const Vec weight = Broadcast(p + r * kTileKeys + key);
#pragma GCC unroll 4
        for (int c = 0; c < C; ++c) acc[r][c] = Fma(weight, values[c], acc[r][c]);
      }
    }
  }
#pragma GCC unroll 6
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) Store(o + r * stride + c * kLanes, acc[r][c]);
  }
}

// stride: the padded head_dim, of V and of o.
template <int R>
void ValueRows(const float* p, const float* const* blocks, int64_t stride, int64_t begin,
               int64_t end, float* o) {
  for (int64_t d = 0; d < stride;) {
    const float* at[kTileBlocks];
    for (int64_t b = begin / kBlockKeys; b * kBlockKeys < end; ++b) at[b] = blocks[b] + d;
    const int64_t cols = (stride - d) / kLanes;
    if (cols >= kMaxCols) {
      ValueBlock<R, kMaxCols>(p, at, stride, begin, end, o + d);
      d += kMaxCols * kLanes;
    } else if (cols >= 2) {
      ValueBlock<R, 2>(p, at, stride, begin, end, o + d);
      d += 2 * kLanes;
    } else {
      ValueBlock<R, 1>(p, at, stride, begin, end, o + d);
      d += kLanes;
    }
  }
}

using ScoreFunction = decltype(&ScoreRows<1>);
using ValueFunction = decltype(&ValueRows<1>);
constexpr ScoreFunction kScoreRows[kMaxRows] = {ScoreRows<1>, ScoreRows<2>, ScoreRows<3>,
                                                ScoreRows<4>, ScoreRows<5>, ScoreRows<6>};
constexpr ValueFunction kValueRows[kMaxRows] = {ValueRows<1>, ValueRows<2>, ValueRows<3>,
                                                ValueRows<4>, ValueRows<5>, ValueRows<6>};

// ---- one task ----

// Keys [lo, hi) of a tile; none if lo >= hi.
struct KeyRange {
  int64_t lo = 0;
  int64_t hi = 0;
};

struct Attend {
  const AttentionTask& task;
  int64_t rows;
  int64_t padded;
  // Scratch. Rows are (token, head) in order.
  float* q;           // [rows][head_dim], scaled
  float* o;           // [rows][padded], not yet divided by the sum
  float* p;           // [rows][64]: scores, then weights, of the current tile
  float* sum;         // [rows][kLanes]: partial sums of weights
  float* max;         // [rows]: running maximum
  int32_t* position;  // [rows]
  float* k_wide;      // the tile widened to F32
  float* v_wide;
  // The current tile.
  int64_t tile_begin = 0;  // position of its first key
  const float* k[kTileBlocks] = {};
  const float* v[kTileBlocks] = {};

  explicit Attend(const AttentionTask& t);
  void PackQueries();
  void Run();
  void LoadTile(int64_t begin);
  KeyRange Visible(int64_t row) const;
  void ScoreGroup(int64_t row, int64_t count);
  void AddAlibi(int64_t row, int64_t begin, int64_t end);
  void SoftmaxRow(int64_t row, KeyRange range);
  void ValueGroup(int64_t row, int64_t count);
  void StoreRow(int64_t row) const;
};

Attend::Attend(const AttentionTask& t)
    : task(t), rows(t.tokens * t.group), padded(PaddedDim(t.head_dim)) {
  float* next = t.scratch;
  const auto take = [&next](int64_t floats) {
    float* taken = next;
    next += floats;
    return taken;
  };
  k_wide = take(kTileKeys * padded);
  v_wide = take(kTileKeys * padded);
  o = take(rows * padded);
  p = take(rows * kTileKeys);
  sum = take(rows * kLanes);
  q = take(rows * padded);
  max = take(rows);
  position = reinterpret_cast<int32_t*>(take(rows));
}

// Scores come out in units of log2, so that weights are powers of 2; with a soft cap, in units of
// the cap.
void Attend::PackQueries() {
  const float factor = task.softcap > 0 ? task.scale / task.softcap : task.scale * kLog2E;
  const Vec scale = Set1(factor);
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t token = row / task.group;
    const float* from = task.q + token * task.q_stride + row % task.group * task.head_dim;
    float* to = q + row * task.head_dim;
    int64_t d = 0;
    for (; d + kLanes <= task.head_dim; d += kLanes) {
      // A token's heads are a short run at a long stride, which hardware prefetching misses.
      if (token + kPrefetchTokens < task.tokens) {
        __builtin_prefetch(from + kPrefetchTokens * task.q_stride + d);
      }
      Store(to + d, Load(from + d) * scale);
    }
    for (; d < task.head_dim; ++d) to[d] = from[d] * factor;
    if (task.format == KvFormat::kInt4) Rotate(to, task.head_dim);
    max[row] = kLowest;
    position[row] = static_cast<int32_t>(task.first_position + token);
  }
  for (int64_t i = 0; i < rows * padded; i += kLanes) Store(o + i, Zero());
  for (int64_t i = 0; i < rows * kLanes; i += kLanes) Store(sum + i, Zero());
}

// Blocks that no row of the task sees are not touched: their table entries may not exist.
void Attend::LoadTile(int64_t begin) {
  tile_begin = begin;
  const int64_t seen_end = task.first_position + task.tokens;
  const int64_t seen_begin =
      task.sliding_window > 0 ? Max(0, task.first_position - task.sliding_window + 1) : 0;
  const int64_t k_elements = kBlockKeys * task.head_dim;
  const int64_t v_elements = kBlockKeys * padded;
  for (int64_t b = 0; b < kTileBlocks; ++b) {
    const int64_t at = begin + b * kBlockKeys;
    if (at >= seen_end || at + kBlockKeys <= seen_begin) continue;
    const uint8_t* block = static_cast<const uint8_t*>(task.cache) +
                           task.block_table[at / kBlockKeys] * task.block_stride;
    if (task.format == KvFormat::kF32) {
      k[b] = reinterpret_cast<const float*>(block);
      v[b] = k[b] + k_elements;
      continue;
    }
    const BlockCodes codes{task.format, task.head_dim, block, task.key_scale, task.value_scale};
    WidenKeys(codes, k_wide + b * k_elements);
    WidenValues(codes, v_wide + b * v_elements);
    k[b] = k_wide + b * k_elements;
    v[b] = v_wide + b * v_elements;
  }
}

KeyRange Attend::Visible(int64_t row) const {
  const int64_t at = position[row] - tile_begin;
  const int64_t lo = task.sliding_window > 0 ? Max(0, at - task.sliding_window + 1) : 0;
  return {lo, Min(kTileKeys, at + 1)};
}

void Attend::ScoreGroup(int64_t row, int64_t count) {
  // Positions do not fall within a group: the first row sees furthest back, the last furthest on.
  const int64_t lo = Visible(row).lo;
  const int64_t hi = Visible(row + count - 1).hi;
  if (lo >= hi || lo >= kTileKeys) return;
  float* s = p + row * kTileKeys;
  const int64_t begin = lo / kLanes;
  const int64_t end = (hi + kLanes - 1) / kLanes;
  kScoreRows[count - 1](q + row * task.head_dim, task.head_dim, k, begin, end, s);
  if (task.softcap > 0) {
    const Vec cap = Set1(task.softcap * kLog2E);
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t i = begin; i < end; ++i) {
        float* at = s + r * kTileKeys + i * kLanes;
        Store(at, cap * Tanh(Load(at)));
      }
    }
  }
  for (int64_t r = 0; r < count; ++r) {
    if (task.alibi_slopes != nullptr) AddAlibi(row + r, begin, end);
    const KeyRange range = Visible(row + r);
    if (range.lo < range.hi) SoftmaxRow(row + r, range);
  }
}

// Vectors [begin, end) of the row's scores; distances are exact.
void Attend::AddAlibi(int64_t row, int64_t begin, int64_t end) {
  const Vec slope = Set1(task.alibi_slopes[row % task.group] * kLog2E);
  const auto nearest = static_cast<int32_t>(tile_begin - position[row]);
  for (int64_t i = begin; i < end; ++i) {
    const VecInt ahead = LaneIndex() + (nearest + static_cast<int32_t>(i * kLanes));
    float* at = p + row * kTileKeys + i * kLanes;
    Store(at, Fma(slope, __builtin_convertvector(ahead, Vec), Load(at)));
  }
}

// Scores become weights 2^(score - max), 0 for keys that the row does not see (whatever their
// slots hold); sum and output are rescaled when the maximum grows. Adding the zero weights of
// unseen lanes, or leaving out vectors without a seen key, gives the same bits.
void Attend::SoftmaxRow(int64_t row, KeyRange range) {
  float* s = p + row * kTileKeys;
  const int begin = static_cast<int>(range.lo / kLanes);
  const int end = static_cast<int>((range.hi + kLanes - 1) / kLanes);
  Vec x[kTileVecs];
  Vec top = Set1(kLowest);
  if (range.lo == 0 && range.hi == kTileKeys) {
#pragma GCC unroll 16
    for (int i = 0; i < kTileVecs; ++i) {
      x[i] = Load(s + i * kLanes);
      top = FastMax(top, x[i]);
    }
  } else {
    const Vec hidden = Set1(-__builtin_inff());
    const VecInt lo = VecInt{} + static_cast<int32_t>(range.lo);
    const VecInt hi = VecInt{} + static_cast<int32_t>(range.hi);
    for (int i = 0; i < kTileVecs; ++i) {
      x[i] = hidden;
      if (i < begin || i >= end) continue;
      const VecInt key = LaneIndex() + i * kLanes;
      x[i] = ((key >= lo) & (key < hi)) ? Load(s + i * kLanes) : hidden;
      top = FastMax(top, x[i]);
    }
  }
  const float tile_max = FastReduceMax(top);
  if (tile_max > max[row]) {
    const Vec shrink = Exp2NonPositive(Vec{} + (max[row] - tile_max));
    max[row] = tile_max;
    Store(sum + row * kLanes, Load(sum + row * kLanes) * shrink);
    float* out = o + row * padded;
    for (int64_t d = 0; d < padded; d += kLanes) Store(out + d, Load(out + d) * shrink);
  }
  const Vec row_max = Broadcast(max + row);
  Vec total = Load(sum + row * kLanes);
#pragma GCC unroll 16
  for (int i = 0; i < kTileVecs; ++i) {
    const Vec weight = Exp2NonPositive(x[i] - row_max);
    total += weight;
    Store(s + i * kLanes, weight);
  }
  Store(sum + row * kLanes, total);
}

// A row adds the values it sees and no others: an unseen one may be NaN, which a weight of 0 would
// not silence. Keys that all rows of the group see are added together, the rest row by row.
void Attend::ValueGroup(int64_t row, int64_t count) {
  const int64_t lo = Visible(row + count - 1).lo;
  const int64_t hi = Visible(row).hi;
  const bool common = lo < hi;
  const auto add = [this](int64_t first, int64_t n, int64_t begin, int64_t end) {
    if (begin >= end) return;
    kValueRows[n - 1](p + first * kTileKeys, v, padded, begin, end, o + first * padded);
  };
  for (int64_t r = row; r < row + count; ++r) {
    const KeyRange range = Visible(r);
    add(r, 1, range.lo, common ? lo : range.hi);
  }
  if (!common) return;
  add(row, count, lo, hi);
  for (int64_t r = row; r < row + count; ++r) add(r, 1, hi, Visible(r).hi);
}

void Attend::StoreRow(int64_t row) const {
  if (task.format == KvFormat::kInt4) Rotate(o + row * padded, task.head_dim);
  const Vec inverse = Set1(1.0f / ReduceSum(Load(sum + row * kLanes)));
  const int64_t at = row / task.group * task.out_stride + row % task.group * task.head_dim;
  for (int64_t d = 0; d < task.head_dim; d += kLanes) {
    const Vec x = Load(o + row * padded + d) * inverse;
    const int64_t n = Min(kLanes, task.head_dim - d);
    if (task.out_bf16) {
      StorePartAs(static_cast<uint16_t*>(task.out) + at + d, x, n);
    } else {
      StorePartAs(static_cast<float*>(task.out) + at + d, x, n);
    }
  }
}

void Attend::Run() {
  PackQueries();
  const int64_t window = task.sliding_window;
  const int64_t first_key = window > 0 ? Max(0, task.first_position - window + 1) : 0;
  const int64_t keys = task.first_position + task.tokens;
  for (int64_t key = first_key / kTileKeys * kTileKeys; key < keys; key += kTileKeys) {
    LoadTile(key);
    // All scores first, then all outputs: K and V each fit the first-level cache, not both.
    for (int64_t row = 0; row < rows; row += kMaxRows) {
      ScoreGroup(row, Min(kMaxRows, rows - row));
    }
    for (int64_t row = 0; row < rows; row += kMaxRows) {
      ValueGroup(row, Min(kMaxRows, rows - row));
    }
  }
  for (int64_t row = 0; row < rows; ++row) StoreRow(row);
}

void RunAttend(const AttentionTask& task) { Attend(task).Run(); }

void RunAppend(const AppendTask& task) {
  switch (task.format) {
    case KvFormat::kF32:
      return AppendFloats<float>(task);
    case KvFormat::kBF16:
      return AppendFloats<uint16_t>(task);
    case KvFormat::kFp8:
    case KvFormat::kInt8:
    case KvFormat::kInt4:
      return AppendCodes(task);
  }
}

}  // namespace

const AttentionKernels kAttentionKernels = {.attend = RunAttend, .append = RunAppend};

}  // namespace quantmill::cpu::QUANTMILL_ISA
