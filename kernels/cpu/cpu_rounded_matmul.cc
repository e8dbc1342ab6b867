// MatMul with rounded inputs (ops.h), of the cpu backend: all tokens are rounded to the steps that
// the tiles multiply, then blocks of rows meet blocks of panels as in cpu_matmul.cc. The sums of a
// segment are scaled when it ends.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_rounded_linear.h"
#include "kernels/cpu/matmul_output.h"

namespace quantmill::cpu {

QUANTMILL_DEFINE_ISA_TABLE(RoundedKernels, kRoundedKernels)

namespace {

StepType StepOf(const CpuRoundedLinear& w, const MatMulKernels& tiles,
                const RoundedKernels& kernels) {
  if (w.integers()) return kernels.integer_step;
  return tiles.bf16.tile != nullptr ? StepType::kPairs : StepType::kFloats;
}

// Inputs in a step.
int64_t InputsOf(StepType type) {
  switch (type) {
    case StepType::kBytes:
      return 4;
    case StepType::kShorts:
    case StepType::kPairs:
      return 2;
    case StepType::kFloats:
      return 1;
  }
  return 1;
}

class RoundedCall {
 public:
  RoundedCall(const MatMulKernels& tiles, const RoundedKernels& kernels, ConstMatrix x,
              const CpuRoundedLinear& w, ConstMatrix bias, MatMulMode mode, Matrix y)
      : tiles_(tiles),
        kernels_(kernels),
        x_(x),
        w_(w),
        output_{bias, mode, y},
        segments_(w.segments()),
        step_(StepOf(w, tiles, kernels)),
        tile_rows_(step_ == StepType::kPairs ? tiles.bf16.tile_rows : tiles.f32.tile_rows),
        step_inputs_(InputsOf(step_)),
        // Integers come in quads whatever the step.
        segment_steps_(w.integers() ? w.segment_quads() * (4 / step_inputs_)
                                    : CeilDiv(segments_.inputs, step_inputs_)),
        blocks_(std::max<int64_t>(1, CeilDiv(segment_steps_, kMaxSteps))),
        // Of whole quads.
        block_steps_(RoundUp(CeilDiv(segment_steps_, blocks_), 4)),
        plan_(PlanTasks({.tokens = x.rows,
                         .panels = w.panels(),
                         .panel_weights = w.in() * tiles.panel_cols,
                         .w_bytes = w.bytes(),
                         .x_bytes = x.rows * segments_.count * segment_steps_ * 4,
                         .tile_rows = tile_rows_})) {}

  void Run(Exec& exec) {
    Workspace::Scope scope(exec.workspace);
    ThreadPool& pool = PoolOf(exec);
    RoundInputs(scope, pool);
    const int64_t cols = tiles_.panel_cols;
    const bool unpacks = !w_.integers() || kernels_.unpack != nullptr;
    const Matrix w_blocks =
        scope.Take(DType::kF32, pool.threads(), unpacks ? block_steps_ * cols : 0);
    // Sums outlive a K block where the segment has several, scaled ones where the row has several.
    const int64_t task_sums = plan_.panels * plan_.rows * cols;
    const Matrix sums =
        scope.Take(DType::kF32, pool.threads(), blocks_ > 1 ? task_sums : tile_rows_ * cols);
    const Matrix totals =
        scope.Take(DType::kF32, pool.threads(), segments_.count > 1 ? task_sums : 0);
    pool.ParallelFor(plan_.row_blocks * plan_.panel_blocks, [&](int64_t task, int thread) {
      RunTask(task, {.w = w_blocks.Row<float>(thread),
                     .sums = sums.Row<float>(thread),
                     .totals = totals.Row<float>(thread)});
    });
  }

 private:
  struct Scratch {
    float* w = nullptr;
    float* sums = nullptr;
    float* totals = nullptr;
  };
  // One K block of one segment of one panel, for the rows of a task.
  struct Block {
    int64_t first_row = 0;
    int64_t rows = 0;
    int64_t panel = 0;
    int64_t segment = 0;
    int64_t begin = 0;  // step of the segment
    int64_t steps = 0;
    bool first = false;  // of the segment's
    bool last = false;
    const void* weights = nullptr;
    const uint8_t* ahead = nullptr;  // of about the block that is needed next
    float* sums = nullptr;    // of row 0 of the task; or of one tile, if the segment has one block
    float* totals = nullptr;  // of row 0 of the task
  };

  void RoundInputs(Workspace::Scope& scope, ThreadPool& pool) {
    const int64_t steps = segments_.count * segment_steps_;
    // A cache line more than a power of two: rows would compete for the same places of the caches.
    steps_ = scope.Take(DType::kI32, x_.rows, RoundUp(steps, 16) + 16);
    x_scales_ = scope.Take(DType::kF32, x_.rows, CeilDiv(segments_.count, segments_.per_input));
    if (w_.has_zeros()) x_sums_ = scope.Take(DType::kI32, x_.rows, segments_.count);
    constexpr int64_t kTaskElements = int64_t{1} << 14;
    const int64_t rows = std::max<int64_t>(1, kTaskElements / (x_.cols + 1));
    pool.ParallelFor(CeilDiv(x_.rows, rows), [&](int64_t task, int) {
      const int64_t end = std::min(x_.rows, (task + 1) * rows);
      for (int64_t t = task * rows; t < end; ++t) RoundRow(t);
    });
  }

  void RoundRow(int64_t t) const {
    RoundArgs args;
    args.x = {x_.Rows(t, 1).data, x_.dtype == DType::kBF16};
    args.in = x_.cols;
    args.dynamic = w_.input().dynamic;
    args.scale = w_.input_scale();
    args.zero = w_.input_zero();
    args.group = segments_.per_input * segments_.inputs;
    args.segment = segments_.inputs;
    args.segment_steps = segment_steps_;
    args.type = step_;
    args.steps = steps_.Row<int32_t>(t);
    args.scales = x_scales_.Row<float>(t);
    args.sums = w_.has_zeros() ? x_sums_.Row<int32_t>(t) : nullptr;
    // Without inputs there is one segment of no steps.
    args.scales[0] = 0;
    kernels_.round(args);
  }

  void RunTask(int64_t task, const Scratch& scratch) const {
    const TaskBlocks at = BlocksOf(plan_, task);
    const int64_t first_panel = at.panel_block * plan_.panels;
    const int64_t end_panel = std::min(w_.panels(), first_panel + plan_.panels);
    const int64_t cols = tiles_.panel_cols;
    Block b;
    b.first_row = at.row_block * plan_.rows;
    b.rows = std::min(plan_.rows, x_.rows - b.first_row);
    for (b.segment = 0; b.segment < segments_.count; ++b.segment) {
      for (int64_t block = 0; block < blocks_; ++block) {
        b.first = block == 0;
        b.last = block + 1 == blocks_;
        b.begin = block * block_steps_;
        b.steps = std::clamp<int64_t>(SegmentSteps(b.segment) - b.begin, 0, block_steps_);
        for (b.panel = first_panel; b.panel < end_panel; ++b.panel) {
          const int64_t offset = (b.panel - first_panel) * plan_.rows * cols;
          b.sums = blocks_ > 1 ? scratch.sums + offset : scratch.sums;
          b.totals = segments_.count > 1 ? scratch.totals + offset : nullptr;
          b.weights = Weights(b, scratch.w);
          b.ahead = Ahead(b, std::min(b.panel + 1, end_panel - 1));
          MultiplyPanel(b);
        }
      }
    }
  }

  // The last segment may be short.
  int64_t SegmentSteps(int64_t segment) const {
    const int64_t inputs = std::min(segments_.inputs, w_.in() - segment * segments_.inputs);
    return CeilDiv(inputs, step_inputs_);
  }

  // The panel's block in the steps of the tile.
  const void* Weights(const Block& b, float* to) const {
    const int64_t cols = tiles_.panel_cols;
    if (w_.integers()) {
      const int64_t quad = b.begin * step_inputs_ / 4;
      const int8_t* quads = w_.Quads(b.panel, b.segment) + quad * cols * 4;
      if (kernels_.unpack == nullptr) return quads;
      kernels_.unpack(quads, CeilDiv(b.steps * step_inputs_, 4), reinterpret_cast<int16_t*>(to));
      return to;
    }
    const Panel panel = w_.numbers().PanelAt(b.panel);
    const int64_t begin = b.segment * segments_.inputs + b.begin * step_inputs_;
    const int64_t end =
        std::min({w_.in(), (b.segment + 1) * segments_.inputs, begin + b.steps * step_inputs_});
    (step_ == StepType::kPairs ? tiles_.bf16 : tiles_.f32).unpack(panel, begin, end - begin, to);
    return to;
  }

  // The same block of panel `next`, as it is stored.
  const uint8_t* Ahead(const Block& b, int64_t next) const {
    if (w_.integers()) {
      const int64_t quad = b.begin * step_inputs_ / 4;
      return reinterpret_cast<const uint8_t*>(w_.Quads(next, b.segment) +
                                              quad * tiles_.panel_cols * 4);
    }
    const int64_t begin = b.segment * segments_.inputs + b.begin * step_inputs_;
    return w_.numbers().Values(next) +
           InputBytes(w_.numbers().type(), std::min(begin, w_.in()), tiles_.panel_cols);
  }

  void MultiplyPanel(const Block& b) const {
    const int64_t cols = tiles_.panel_cols;
    int64_t ahead = 0;
    for (int64_t r = 0; r < b.rows; r += tile_rows_) {
      TileArgs tile;
      tile.rows = static_cast<int>(std::min(tile_rows_, b.rows - r));
      tile.x = steps_.Row<int32_t>(b.first_row + r) + b.segment * segment_steps_ + b.begin;
      tile.x_row = steps_.stride;
      tile.w = b.weights;
      tile.steps = b.steps;
      tile.resume = !b.first;
      tile.ahead = b.ahead + ahead;
      // Once the next block is on its way, its begin again, which costs nothing.
      ahead = ahead + 2 * b.steps * 64 <= b.steps * cols * 4 ? ahead + b.steps * 64 : 0;
      tile.sums = blocks_ > 1 ? b.sums + r * cols : b.sums;
      if (w_.integers()) {
        kernels_.tile(tile);
      } else if (step_ == StepType::kPairs) {
        tiles_.bf16.tile(tile);
      } else {
        tiles_.f32.tile(tile);
      }
      if (b.last) FoldTile(b, r, tile);
    }
  }

  // Scales the sums of a segment; the last one's go to y.
  void FoldTile(const Block& b, int64_t r, const TileArgs& tile) const {
    const int64_t row = b.first_row + r;
    FoldArgs fold;
    fold.rows = tile.rows;
    fold.sums = tile.sums;
    fold.integers = w_.integers();
    if (w_.integers()) fold.offsets = w_.Offsets(b.panel, b.segment);
    if (w_.has_zeros()) {
      fold.zeros = w_.Zeros(b.panel, b.segment);
      fold.x_sums = x_sums_.Row<int32_t>(row) + b.segment;
      fold.x_sums_row = x_sums_.stride;
    }
    fold.w_scales = w_.Scales(b.panel, b.segment);
    fold.x_scales = x_scales_.Row<float>(row) + b.segment / segments_.per_input;
    fold.x_scales_row = x_scales_.stride;
    fold.first = b.segment == 0;
    fold.out = b.totals == nullptr ? tile.sums : b.totals + r * tiles_.panel_cols;
    kernels_.fold(fold);
    if (b.segment + 1 == segments_.count) output_.Store(tiles_, row, tile.rows, b.panel, fold.out);
  }

  const MatMulKernels& tiles_;
  const RoundedKernels& kernels_;
  ConstMatrix x_;
  const CpuRoundedLinear& w_;
  MatMulOutput output_;
  Segments segments_;
  StepType step_;
  int64_t tile_rows_;
  int64_t step_inputs_;
  int64_t segment_steps_;
  int64_t blocks_;  // K blocks of a segment
  int64_t block_steps_;
  TaskPlan plan_;
  // The rounded inputs, in the call's scratch.
  Matrix steps_;     // [tokens, segments * segment_steps], padded
  Matrix x_scales_;  // [tokens, groups of the input]
  Matrix x_sums_;    // [tokens, segments], where the weight has zero points
};

}  // namespace

void CpuBackend::RoundToBlocks(Exec& exec, ConstMatrix x, const BlockRounding& rounding,
                               Matrix out) {
  const RoundedKernels& kernels = SelectRoundedKernels(isa_);
  constexpr int64_t kTaskElements = int64_t{1} << 14;
  const int64_t rows = std::max<int64_t>(1, kTaskElements / (x.cols + 1));
  PoolOf(exec).ParallelFor(CeilDiv(x.rows, rows), [&](int64_t task, int) {
    const int64_t end = std::min(x.rows, (task + 1) * rows);
    for (int64_t t = task * rows; t < end; ++t) {
      kernels.round_blocks({.x = {x.Rows(t, 1).data, x.dtype == DType::kBF16},
                            .in = x.cols,
                            .rounding = rounding,
                            .out = out.Rows(t, 1).data});
    }
  });
}

void CpuBackend::RoundedMatMul(Exec& exec, ConstMatrix x, const CpuRoundedLinear& w,
                               ConstMatrix bias, MatMulMode mode, Matrix y) {
  RoundedCall(SelectMatMulKernels(isa_), SelectRoundedKernels(isa_), x, w, bias, mode, y).Run(exec);
}

}  // namespace quantmill::cpu
