// How the products of the cpu backend are cut into tasks, by shape alone.
#ifndef QUANTMILL_KERNELS_CPU_MATMUL_PLAN_H_
#define QUANTMILL_KERNELS_CPU_MATMUL_PLAN_H_

#include <cstdint>

namespace quantmill::cpu {

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

// Steps (inputs, or two or four of them together) of one K block. 1 MB of L2 holds a task's rows of
// one K block (288 KB), its panel and the next one (192 KB each) and its sums (24 KB per panel).
// Within that, measured on Zen 5, larger is better.
inline constexpr int64_t kMaxSteps = 768;
inline constexpr int64_t kMaxRows = 96;  // of x, per task
// Unpacking a panel into parts takes longer, and machines that multiply them have 2 MB of L2.
inline constexpr int64_t kMaxPartsRows = 192;

struct TaskShape {
  int64_t tokens = 0;  // at least 1
  int64_t panels = 0;  // of the weight; at least 1
  int64_t panel_weights = 0;
  int64_t w_bytes = 0;
  int64_t x_bytes = 0;
  int64_t tile_rows = 0;
  int64_t max_rows = kMaxRows;
};

struct TaskPlan {
  int64_t rows = 0;    // of x, per task
  int64_t panels = 0;  // per task
  int64_t row_blocks = 0;
  int64_t panel_blocks = 0;
  bool rows_inner = false;  // neighbouring tasks share panels; otherwise they share rows
};

TaskPlan PlanTasks(const TaskShape& shape);

// The blocks of the task-th of row_blocks * panel_blocks tasks.
struct TaskBlocks {
  int64_t row_block = 0;
  int64_t panel_block = 0;
};
TaskBlocks BlocksOf(const TaskPlan& plan, int64_t task);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_MATMUL_PLAN_H_
