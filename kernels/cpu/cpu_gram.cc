// AddGram of the cpu backend: a chunk of tokens is packed into column panels, then each pair of
// panels (I <= J) is one task that adds its block of x^T x to gram.
#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/gram_kernels.h"

namespace quantmill::cpu {

QUANTMILL_DEFINE_ISA_TABLE(GramKernels, kGramKernels)

namespace {

// Steps per chunk (1024 tokens, or 2048 as pairs). Fixed, because it decides how sums are rounded;
// long enough that reading and writing gram once per chunk costs little.
constexpr int64_t kChunkSteps = 1024;
constexpr int64_t kPackSteps = 256;  // per packing task

// The task-th pair (i, j), i <= j < panels, row by row: neighbours share panel i.
struct PanelPair {
  int64_t i = 0;
  int64_t j = 0;
};
PanelPair PairAt(int64_t task, int64_t panels) {
  int64_t i = 0;
  while (task >= panels - i) {
    task -= panels - i;
    ++i;
  }
  return {i, i + task};
}

}  // namespace

void CpuBackend::AddGram(Exec& exec, ConstMatrix x, Matrix gram) {
  Check(x.dtype == DType::kF32 || x.dtype == DType::kBF16, "AddGram: x is F32 or BF16");
  Check(gram.dtype == DType::kF32 && gram.rows == x.cols && gram.cols == x.cols,
        "AddGram: gram is [in, in] F32");
  if (x.size() == 0) return;
  const GramKernels& kernels = SelectGramKernels(isa_);
  const bool bf16 = x.dtype == DType::kBF16;
  const bool pairs = bf16 && kernels.pairs;
  const int64_t step_tokens = pairs ? 2 : 1;
  const int64_t cols = kernels.panel_cols;
  const int64_t panels = (x.cols + cols - 1) / cols;
  const int64_t max_steps = std::min(kChunkSteps, (x.rows + step_tokens - 1) / step_tokens);

  Workspace::Scope scope(exec.workspace);
  ThreadPool& pool = PoolOf(exec);
  const Matrix packed = scope.Take(DType::kF32, panels, max_steps * cols);
  const Matrix sums = scope.Take(DType::kF32, pool.threads(), cols * cols);
  const auto width = [&](int64_t panel) {
    return static_cast<int>(std::min(cols, x.cols - panel * cols));
  };

  for (int64_t begin = 0; begin < x.rows; begin += kChunkSteps * step_tokens) {
    const int64_t tokens = std::min(kChunkSteps * step_tokens, x.rows - begin);
    const int64_t steps = (tokens + step_tokens - 1) / step_tokens;
    const int64_t slices = (steps + kPackSteps - 1) / kPackSteps;
    pool.ParallelFor(slices * panels, [&](int64_t task, int) {
      const int64_t panel = task % panels;
      const int64_t first_step = task / panels * kPackSteps;
      const int64_t first = first_step * step_tokens;
      GramPackArgs args;
      args.x = x.Rows(begin + first, 1).Cols(panel * cols, width(panel)).data;
      args.x_row = x.stride;
      args.bf16 = bf16;
      args.tokens = std::min(kPackSteps * step_tokens, tokens - first);
      args.cols = width(panel);
      args.panel = packed.Row<float>(panel) + first_step * cols;
      kernels.pack(args);
    });
    pool.ParallelFor(panels * (panels + 1) / 2, [&](int64_t task, int thread) {
      const PanelPair pair = PairAt(task, panels);
      GramBlockArgs args;
      args.a = packed.Row<float>(pair.i);
      args.b = packed.Row<float>(pair.j);
      args.steps = steps;
      args.rows = width(pair.i);
      args.cols = width(pair.j);
      args.sums = sums.Row<float>(thread);
      args.gram = gram.Row<float>(pair.i * cols) + pair.j * cols;
      args.gram_row = gram.stride;
      (pairs ? kernels.add_block_pairs : kernels.add_block)(args);
    });
  }
}

}  // namespace quantmill::cpu
