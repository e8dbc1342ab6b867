#include "kernels/cpu/matmul_plan.h"

#include <algorithm>

namespace quantmill::cpu {
namespace {

constexpr int64_t kMaxPanels = 16;
constexpr int64_t kMinPanels = 4;  // fewer, and copying the rows of x is felt
constexpr int64_t kTasks = 24;     // at least, where kMinPanels allows: threads end together
// A few rows: reading and unpacking weights is the work. So many take a thread some microseconds,
// and handing them out a fraction of one (between the products of a token threads do not sleep).
constexpr int64_t kTaskWeights = int64_t{1} << 15;

}  // namespace

TaskPlan PlanTasks(const TaskShape& shape) {
  TaskPlan plan;
  plan.row_blocks = CeilDiv(shape.tokens, shape.max_rows);
  plan.rows = RoundUp(CeilDiv(shape.tokens, plan.row_blocks), shape.tile_rows);
  plan.row_blocks = CeilDiv(shape.tokens, plan.rows);
  if (shape.tokens <= 2 * shape.tile_rows) {
    plan.panels = CeilDiv(kTaskWeights, std::max<int64_t>(1, shape.panel_weights));
    plan.panels = std::min(plan.panels, shape.panels);
  } else {
    plan.panels = CeilDiv(shape.panels * plan.row_blocks, kTasks);
    plan.panels = std::clamp(plan.panels, kMinPanels, kMaxPanels);
  }
  plan.panel_blocks = CeilDiv(shape.panels, plan.panels);
  plan.panels = CeilDiv(shape.panels, plan.panel_blocks);
  // What is larger is read from memory once, the other one stays in the last-level cache.
  plan.rows_inner = shape.x_bytes <= shape.w_bytes;
  return plan;
}

TaskBlocks BlocksOf(const TaskPlan& plan, int64_t task) {
  if (plan.rows_inner) return {task % plan.row_blocks, task / plan.row_blocks};
  return {task / plan.panel_blocks, task % plan.panel_blocks};
}

}  // namespace quantmill::cpu
