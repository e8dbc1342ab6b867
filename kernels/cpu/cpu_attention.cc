// Attention of the cpu backend: the paged store of keys and values, and the ops on it.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/batch_plan.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {

QUANTMILL_DEFINE_ISA_TABLE(AttentionKernels, kAttentionKernels)

namespace {

static_assert(kBlockKeys == kKvBlockTokens);

// Blocks of one layer lie one after another; attention_kernels.h describes a block. Where head_dim
// is no multiple of 16, the padding of V makes the store larger than KvBlockBytes says.
class CpuKvStore : public KvStore {
 public:
  explicit CpuKvStore(const KvShape& shape)
      : shape_(shape),
        format_(FormatOf(shape)),
        block_bytes_(shape.kv_heads * HeadBytes(format_, shape.head_dim)),
        memory_(HostTensor(DType::kU8, shape.layers * shape.blocks, block_bytes_)) {
    const auto heads = static_cast<size_t>(shape.layers * shape.kv_heads);
    if (shape_.key_scales.empty()) shape_.key_scales.assign(heads, 1.0f);
    if (shape_.value_scales.empty()) shape_.value_scales.assign(heads, 1.0f);
  }

  const KvShape& shape() const override { return shape_; }
  int64_t bytes() const override { return memory_.bytes(); }

  KvFormat format() const { return format_; }
  int64_t block_bytes() const { return block_bytes_; }
  uint8_t* Block(int64_t layer, int64_t block) const {
    return memory_.Row<uint8_t>(layer * shape_.blocks + block);
  }
  // Of the layer's heads.
  const float* KeyScales(int64_t layer) const {
    return shape_.key_scales.data() + layer * shape_.kv_heads;
  }
  const float* ValueScales(int64_t layer) const {
    return shape_.value_scales.data() + layer * shape_.kv_heads;
  }

 private:
  KvShape shape_;
  KvFormat format_;
  int64_t block_bytes_;
  Tensor memory_;
};

const CpuBatchPlan& PlanOf(const BatchPlan& plan) { return static_cast<const CpuBatchPlan&>(plan); }

// Rows (tokens x heads of a group) of one attention task. More rows share one reading of the keys;
// fewer leave more tasks to the threads. A function of the shape alone.
int64_t TileTokens(int64_t tokens, int64_t heads, int64_t group) {
  constexpr int64_t kMinRows = 48;
  constexpr int64_t kMaxRows = 192;
  constexpr int64_t kWantedTasks = 64;
  const int64_t rows = std::clamp(tokens * heads / kWantedTasks, kMinRows, kMaxRows);
  return std::max<int64_t>(1, rows / group);
}

}  // namespace

std::unique_ptr<KvStore> CpuBackend::NewKvStore(Exec&, const KvShape& shape) {
  CheckNewKvStore(shape);
  return std::make_unique<CpuKvStore>(shape);
}

void CpuBackend::CopyKvBlock(Exec&, KvStore& store, int32_t from, int32_t to) {
  CheckCopyKvBlock(store.shape(), from, to);
  const auto& kv = static_cast<CpuKvStore&>(store);
  if (from == to) return;
  const auto bytes = static_cast<size_t>(kv.block_bytes());
  for (int64_t layer = 0; layer < kv.shape().layers; ++layer) {
    std::memcpy(kv.Block(layer, to), kv.Block(layer, from), bytes);
  }
}

std::unique_ptr<BatchPlan> CpuBackend::PlanBatch(Exec&, std::span<const SequenceStep> sequences) {
  return std::make_unique<CpuBatchPlan>(sequences);
}

void CpuBackend::AppendKv(Exec& exec, const BatchPlan& plan, int64_t layer, ConstMatrix k,
                          ConstMatrix v, KvStore& store) {
  CheckAppendKv(plan, store.shape(), layer, k, v);
  PlanOf(plan).CheckBlocks(store.shape());
  const CpuBatchPlan& batch = PlanOf(plan);
  const auto& kv = static_cast<CpuKvStore&>(store);
  const KvShape& shape = kv.shape();

  const AttentionKernels& kernels = SelectAttentionKernels(isa_);
  const auto& runs = batch.runs();
  constexpr int64_t kRunsPerTask = 8;
  const auto count = static_cast<int64_t>(runs.size());
  PoolOf(exec).ParallelFor((count + kRunsPerTask - 1) / kRunsPerTask, [&](int64_t task, int) {
    const int64_t end = std::min(count, (task + 1) * kRunsPerTask);
    for (int64_t i = task * kRunsPerTask; i < end; ++i) {
      const CpuBatchPlan::BlockRun& run = runs[static_cast<size_t>(i)];
      kernels.append({.k = k.Row<float>(run.first_row),
                      .v = v.Row<float>(run.first_row),
                      .k_stride = k.stride,
                      .v_stride = v.stride,
                      .tokens = run.tokens,
                      .slot = run.slot,
                      .kv_heads = shape.kv_heads,
                      .head_dim = shape.head_dim,
                      .format = kv.format(),
                      .key_scales = kv.KeyScales(layer),
                      .value_scales = kv.ValueScales(layer),
                      .block = kv.Block(layer, run.block)});
    }
  });
}

void CpuBackend::Attention(Exec& exec, const BatchPlan& plan, int64_t layer,
                           const AttentionParams& params, ConstMatrix q, const KvStore& store,
                           Matrix out) {
  CheckAttention(plan, store.shape(), layer, params, q, out);
  PlanOf(plan).CheckBlocks(store.shape());
  const CpuBatchPlan& batch = PlanOf(plan);
  const auto& kv = static_cast<const CpuKvStore&>(store);
  if (batch.tokens() == 0) return;

  const int64_t group = params.heads / params.kv_heads;
  const int64_t tile_tokens = TileTokens(batch.tokens(), params.heads, group);
  const auto tiles = batch.Tiles(tile_tokens);
  ThreadPool& pool = PoolOf(exec);
  Workspace::Scope scope(exec.workspace);
  // A row of scratch per thread; its length keeps every row 64-byte aligned.
  const int64_t floats = (AttentionScratch(tile_tokens * group, params.head_dim) + 15) / 16 * 16;
  const Matrix scratch = scope.Take(DType::kF32, pool.threads(), floats);
  const AttentionKernels& kernels = SelectAttentionKernels(isa_);
  const int64_t head_bytes = HeadBytes(kv.format(), params.head_dim);
  // All kv heads of a tile before the next tile: the order stays "most keys first".
  const int64_t tasks = static_cast<int64_t>(tiles.size()) * params.kv_heads;
  pool.ParallelFor(tasks, [&](int64_t task, int thread) {
    const auto& tile = tiles[static_cast<size_t>(task / params.kv_heads)];
    const int64_t kv_head = task % params.kv_heads;
    const auto& sequence = batch.sequences()[static_cast<size_t>(tile.sequence)];
    const int64_t row = sequence.first_row + tile.first_token;
    const int64_t column = kv_head * group * params.head_dim;
    const Matrix out_view = out.Rows(row, tile.tokens).Cols(column, group * params.head_dim);
    kernels.attend({.q = q.Row<float>(row) + column,
                    .q_stride = q.stride,
                    .out = out_view.data,
                    .out_stride = out.stride,
                    .out_bf16 = out.dtype == DType::kBF16,
                    .tokens = tile.tokens,
                    .first_position = sequence.context + tile.first_token,
                    .group = group,
                    .head_dim = params.head_dim,
                    .scale = params.scale,
                    .softcap = params.softcap,
                    .alibi_slopes = params.alibi_slopes.empty()
                                        ? nullptr
                                        : params.alibi_slopes.data() + kv_head * group,
                    .sliding_window = params.sliding_window,
                    .cache = kv.Block(layer, 0) + kv_head * head_bytes,
                    .block_stride = kv.block_bytes(),
                    .format = kv.format(),
                    .key_scale = kv.KeyScales(layer)[kv_head],
                    .value_scale = kv.ValueScales(layer)[kv_head],
                    .block_table = batch.blocks().data() + sequence.first_block,
                    .scratch = scratch.Row<float>(thread)});
  });
}

}  // namespace quantmill::cpu
