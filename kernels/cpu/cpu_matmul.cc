// MatMul of the cpu backend: the blocked driver of the kernels in matmul_kernels.h.
//
// A task is a block of rows times a block of panels, over all inputs. For one K block after
// another, it copies its rows of x next to each other (where it has to); then each panel's K block
// is read (and unpacked, if its type needs it) once and multiplied with all rows. Tasks are cut by
// shape alone, and the order of a sum is fixed by the kernel (dot_tile.h), so neither threads nor
// rows change a bit.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/cpu_linear.h"
#include "kernels/cpu/cpu_rounded_linear.h"
#include "kernels/cpu/matmul_output.h"
#include "kernels/cpu/matmul_plan.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {

QUANTMILL_DEFINE_ISA_TABLE(MatMulKernels, kMatMulKernels)

namespace {

// K blocks but the last are multiples of it: what AMX multiplies at a time is not cut, so that it
// does not depend on where K blocks end.
constexpr int64_t kInputsUnit = 32;

// Sizes of a task and of its K blocks, by shape alone.
struct Plan {
  TaskPlan tasks;
  int64_t inputs = 0;        // per K block
  int64_t input_blocks = 0;  // at least 1, so that results are stored even when in is 0
};

const MatMulForm& FormOf(const CpuLinear& w, const MatMulKernels& kernels) {
  if (w.compute() == Compute::kBF16 && kernels.bf16.tile != nullptr) return kernels.bf16;
  if (w.compute() == Compute::kBF16x3 && kernels.bf16x3.tile != nullptr) return kernels.bf16x3;
  return kernels.f32;
}

Plan ChoosePlan(int64_t tokens, const CpuLinear& w, const MatMulForm& form, int64_t panel_cols) {
  Plan plan;
  plan.tasks = PlanTasks({.tokens = tokens,
                          .panels = w.panels(),
                          .panel_weights = w.in() * panel_cols,
                          .w_bytes = w.values().bytes(),
                          .x_bytes = tokens * w.in() * SizeOf(ActivationType(w.compute())),
                          .tile_rows = form.tile_rows,
                          .max_rows = form.splits() ? kMaxPartsRows : kMaxRows});
  // A step of parts is as large as its two inputs would be as floats, and half of that again.
  const int64_t max_inputs = kMaxSteps * (form.splits() ? 1 : form.step_inputs);
  const int64_t unit = form.step_unit * form.step_inputs;
  plan.input_blocks = std::max<int64_t>(1, CeilDiv(w.in(), max_inputs));
  plan.inputs = RoundUp(CeilDiv(w.in(), plan.input_blocks), std::max(kInputsUnit, unit));
  return plan;
}

// One MatMul call, cut by its plan.
class MatMulCall {
 public:
  MatMulCall(const MatMulKernels& kernels, ConstMatrix x, const CpuLinear& w, ConstMatrix bias,
             MatMulMode mode, Matrix y)
      : kernels_(kernels),
        x_(x),
        w_(w),
        output_{bias, mode, y},
        form_(FormOf(w, kernels)),
        pairs_(form_.step_inputs == 2 && !form_.splits()),
        plan_(ChoosePlan(x.rows, w, form_, kernels.panel_cols)),
        // One cache line more than the block: rows whose distance is a power of two would share
        // the few places that L1 has for such addresses.
        x_row_(form_.Steps(plan_.inputs) * form_.parts + 16),
        w_parts_(form_.splits() ? form_.weight_parts(w.PanelAt(0)) : 1) {}

  void Run(Exec& exec) {
    if (Direct()) {
      RunDirect(exec);
    } else {
      RunBlocked(exec);
    }
  }

 private:
  // One K block of one panel, for all rows of a task.
  struct Block {
    int64_t first_row = 0;
    int64_t rows = 0;
    int64_t panel = 0;
    int64_t begin = 0;  // inputs [begin, begin + count)
    int64_t count = 0;
    bool first = false;  // of the K blocks
    bool last = false;
    const void* x = nullptr;         // row r at x + r * x_row
    int64_t x_row = 0;               // in words
    const void* weights = nullptr;   // in the steps of the tile kernel
    const uint8_t* ahead = nullptr;  // the block that is needed next
    float* sums = nullptr;
  };

  bool InPlace() const {
    return (w_.type() == PanelType::kF32 && !form_.splits()) || w_.type() == PanelType::kBF16Pairs;
  }

  // x has the steps of the tile kernel already (parts: as split_), and its rows do not compete for
  // the same places of the caches (as they do at a distance of whole pages).
  bool XInPlace() const {
    if (form_.splits()) return true;
    const int64_t row_bytes = x_.stride * SizeOf(x_.dtype);
    if (row_bytes % 4096 == 0 && x_.rows > form_.tile_rows) return false;
    if (x_.dtype == DType::kF32) return true;
    return pairs_ && x_.cols % 2 == 0 && x_.stride % 2 == 0 &&
           reinterpret_cast<uintptr_t>(x_.data) % 4 == 0;
  }

  // A few rows: no K blocks and no unpacked panel. The sums are the same chains. In F32, reading a
  // panel twice is still faster than unpacking it.
  bool Direct() const {
    if (form_.direct == nullptr || InPlace() || w_.round_to_bf16() != pairs_) return false;
    if (!pairs_) return x_.rows <= 2 * kernels_.direct_rows;
    if (form_.direct_pairs && (w_.in() % 2 != 0 || w_.group_size() % 2 != 0)) return false;
    return x_.rows <= kernels_.direct_rows;
  }

  void RunDirect(Exec& exec) const {
    Workspace::Scope scope(exec.workspace);
    ThreadPool& pool = PoolOf(exec);
    ConstMatrix x = x_;
    if (x.dtype == DType::kBF16 && !form_.direct_pairs) {
      const Matrix wide = scope.Take(DType::kF32, x.rows, x.cols);
      for (int64_t r = 0; r < x.rows; ++r) {
        kernels_.widen(PanelType::kBF16, x_.Row<BF16>(r), 1.0f, x.cols, wide.Row<float>(r));
      }
      x = wide;
    }
    const int64_t direct_rows = kernels_.direct_rows;
    const Matrix sums = scope.Take(DType::kF32, pool.threads(), direct_rows * kernels_.panel_cols);
    pool.ParallelFor(plan_.tasks.panel_blocks, [&](int64_t task, int thread) {
      float* panel_sums = sums.Row<float>(thread);
      const int64_t end = std::min(w_.panels(), (task + 1) * plan_.tasks.panels);
      for (int64_t panel = task * plan_.tasks.panels; panel < end; ++panel) {
        for (int64_t r = 0; r < x.rows; r += direct_rows) {
          const int rows = static_cast<int>(std::min(direct_rows, x.rows - r));
          form_.direct(w_.PanelAt(panel), w_.in(), rows, x.Rows(r, rows).data, x.stride,
                       panel_sums);
          output_.Store(kernels_, r, rows, panel, panel_sums);
        }
      }
    });
  }

  void RunBlocked(Exec& exec) {
    Workspace::Scope scope(exec.workspace);
    ThreadPool& pool = PoolOf(exec);
    if (form_.splits()) SplitRows(scope, pool);
    const int64_t panel_cols = kernels_.panel_cols;
    const int64_t threads = pool.threads();
    const Matrix x_blocks =
        scope.Take(DType::kF32, threads, XInPlace() ? 0 : RoundUp(plan_.tasks.rows * x_row_, 16));
    const Matrix w_blocks = scope.Take(
        DType::kF32, threads, InPlace() ? 0 : form_.Steps(plan_.inputs) * w_parts_ * panel_cols);
    const Matrix sums =
        scope.Take(DType::kF32, threads, plan_.tasks.panels * plan_.tasks.rows * panel_cols);
    pool.ParallelFor(plan_.tasks.row_blocks * plan_.tasks.panel_blocks,
                     [&](int64_t task, int thread) {
                       const TaskBlocks blocks = BlocksOf(plan_.tasks, task);
                       RunTask(blocks.row_block, blocks.panel_block, x_blocks.Row<float>(thread),
                               w_blocks.Row<float>(thread), sums.Row<float>(thread));
                     });
  }

  // All of x in parts: each row is multiplied by several tasks.
  void SplitRows(Workspace::Scope& scope, ThreadPool& pool) {
    const int64_t row_words = form_.Steps(x_.cols) * form_.parts;
    split_ =
        scope.Take(DType::kF32, CeilDiv(x_.rows, form_.tile_rows), form_.tile_rows * row_words);
    pool.ParallelFor(split_.rows, [&](int64_t block, int) {
      const int64_t first = block * form_.tile_rows;
      const int64_t end = std::min<int64_t>(x_.rows, first + form_.tile_rows);
      for (int64_t t = first; t < end; ++t) {
        form_.split_row(x_.Row<float>(t), x_.cols,
                        split_.Row<float>(block) + (t - first) * form_.step_unit);
      }
    });
  }

  void RunTask(int64_t row_block, int64_t panel_block, float* x_block, float* w_block,
               float* sums) const {
    const int64_t first_panel = panel_block * plan_.tasks.panels;
    const int64_t end_panel = std::min(w_.panels(), first_panel + plan_.tasks.panels);
    Block b;
    b.first_row = row_block * plan_.tasks.rows;
    b.rows = std::min(plan_.tasks.rows, x_.rows - b.first_row);
    b.x = x_block;
    b.x_row = x_row_;
    for (int64_t block = 0; block < plan_.input_blocks; ++block) {
      b.first = block == 0;
      b.last = block + 1 == plan_.input_blocks;
      b.begin = block * plan_.inputs;
      b.count = std::min(plan_.inputs, w_.in() - b.begin);
      if (form_.splits()) {
        b.x = split_.Row<float>(b.first_row / form_.tile_rows) +
              form_.Steps(b.begin) * form_.parts * form_.tile_rows;
        b.x_row = split_.stride / form_.tile_rows;
      } else if (XInPlace()) {
        b.x = static_cast<const std::byte*>(x_.data) +
              (b.first_row * x_.stride + b.begin) * SizeOf(x_.dtype);
        b.x_row = x_.stride * SizeOf(x_.dtype) / 4;
      } else {
        CopyRows(b, x_block);
      }
      for (int64_t panel = first_panel; panel < end_panel; ++panel) {
        b.panel = panel;
        b.weights = PanelBlock(b, w_block);
        b.ahead = panel + 1 < end_panel ? PanelAddress(panel + 1, b.begin)
                  : b.last              ? PanelAddress(panel, 0)
                                        : PanelAddress(first_panel, b.begin + b.count);
        b.sums = sums + (panel - first_panel) * plan_.tasks.rows * kernels_.panel_cols;
        MultiplyPanel(b);
      }
    }
  }

  // The task's rows of this K block, in the steps of the tile kernel.
  void CopyRows(const Block& b, float* x_block) const {
    for (int64_t r = 0; r < b.rows; ++r) {
      float* to = x_block + r * x_row_;
      const int64_t row = b.first_row + r;
      if (x_.dtype == DType::kF32) {
        std::memcpy(to, x_.Row<float>(row) + b.begin, static_cast<size_t>(b.count) * 4);
      } else if (pairs_) {
        if (b.count % 2 != 0) to[b.count / 2] = 0;  // the partner of the last input
        std::memcpy(to, x_.Row<BF16>(row) + b.begin, static_cast<size_t>(b.count) * 2);
      } else {
        kernels_.widen(PanelType::kBF16, x_.Row<BF16>(row) + b.begin, 1.0f, b.count, to);
      }
    }
  }

  const uint8_t* PanelAddress(int64_t panel, int64_t input) const {
    return w_.Values(panel) + InputBytes(w_.type(), input, kernels_.panel_cols);
  }

  // The panel's K block in the steps of the tile kernel: in place, or unpacked into w_block.
  const void* PanelBlock(const Block& b, float* w_block) const {
    if (InPlace()) return PanelAddress(b.panel, b.begin);
    form_.unpack(w_.PanelAt(b.panel), b.begin, b.count, w_block);
    return w_block;
  }

  // All rows of the task times one K block of a panel; the last block stores the results.
  void MultiplyPanel(const Block& b) const {
    const int64_t steps = form_.Steps(b.count);
    const int64_t ahead_bytes = InputBytes(w_.type(), b.count, kernels_.panel_cols);
    int64_t ahead = 0;
    for (int64_t r = 0; r < b.rows; r += form_.tile_rows) {
      TileArgs tile;
      tile.rows = static_cast<int>(std::min<int64_t>(form_.tile_rows, b.rows - r));
      tile.x = static_cast<const std::byte*>(b.x) + r * b.x_row * 4;
      tile.x_row = b.x_row;
      tile.w = b.weights;
      tile.w_parts = w_parts_;
      tile.steps = steps;
      tile.resume = !b.first;
      // The first tiles fetch the next block; the others its begin again, which costs nothing.
      tile.ahead = b.ahead + ahead;
      ahead = ahead + 2 * steps * 64 <= ahead_bytes ? ahead + steps * 64 : 0;
      // With a single K block the sums are consumed at once and need not leave L1.
      tile.sums = b.first && b.last ? b.sums : b.sums + r * kernels_.panel_cols;
      form_.tile(tile);
      if (!b.last) continue;
      if (form_.has_nan != nullptr && form_.has_nan(tile.sums, tile.rows)) {
        SumNaNsAgain(b.first_row + r, b.panel, tile);
      }
      output_.Store(kernels_, b.first_row + r, tile.rows, b.panel, tile.sums);
    }
  }

  // Sums of parts that are NaN, by the arithmetic of F32: an infinity times a part that is zero is
  // NaN even where its product with the number is not.
  void SumNaNsAgain(int64_t first_row, int64_t panel, const TileArgs& tile) const {
    std::vector<float> sums(static_cast<size_t>(kernels_.panel_cols));
    for (int r = 0; r < tile.rows; ++r) {
      kernels_.f32.direct(w_.PanelAt(panel), w_.in(), 1, x_.Row<float>(first_row + r), x_.stride,
                          sums.data());
      float* of_row = tile.sums + int64_t{r} * kernels_.panel_cols;
      for (int c = 0; c < kernels_.panel_cols; ++c) {
        if (std::isnan(of_row[c])) of_row[c] = sums[static_cast<size_t>(c)];
      }
    }
  }

  const MatMulKernels& kernels_;
  ConstMatrix x_;
  const CpuLinear& w_;
  MatMulOutput output_;
  const MatMulForm& form_;
  bool pairs_;  // BF16 as it is, two in a step
  Plan plan_;
  int64_t x_row_;  // words (of 4 bytes) between copied rows
  Matrix split_;   // [tokens][steps][parts], words, where the form has parts; in the call's scratch
  int w_parts_;    // of an unpacked step
};

}  // namespace

void CpuBackend::MatMul(Exec& exec, ConstMatrix x, const PackedLinear& w, ConstMatrix bias,
                        MatMulMode mode, Matrix y) {
  CheckMatMul(x, w, bias, mode, y);
  if (y.size() == 0) return;
  if (const auto* rounded = dynamic_cast<const CpuRoundedLinear*>(&w)) {
    return RoundedMatMul(exec, x, *rounded, bias, mode, y);
  }
  if (const auto* scaled = dynamic_cast<const BlockScaledLinear*>(&w)) {
    Workspace::Scope scope(exec.workspace);
    const Matrix rounded_x = scope.Take(x.dtype, x.rows, x.cols);
    RoundToBlocks(exec, x, scaled->rounding(), rounded_x);
    return MatMul(exec, rounded_x, scaled->weight(), bias, mode, y);
  }
  const MatMulKernels& kernels = SelectMatMulKernels(isa_);
  MatMulCall(kernels, x, static_cast<const CpuLinear&>(w), bias, mode, y).Run(exec);
}

}  // namespace quantmill::cpu
