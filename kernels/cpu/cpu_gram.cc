// AddGram of the cpu backend: a chunk of tokens is packed into column panels, then each pair of
// panels (I <= J) is one task that adds its block of x^T x to gram.
#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/gram_kernels.h"
#include "kernels/op_checks.h"

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

// Sums of products of tokens, chunk by chunk.
class GramCall {
 public:
  GramCall(Exec& exec, const GramKernels& kernels, ConstMatrix x)
      : pool_(PoolOf(exec)),
        kernels_(kernels),
        x_(x),
        bf16_(x.dtype == DType::kBF16),
        pairs_(bf16_ && kernels.pairs),
        transposed_(pairs_ && kernels.transposed),
        cols_(kernels.panel_cols),
        panels_((x.cols + cols_ - 1) / cols_),
        chunk_tokens_(kChunkSteps * StepTokens()),
        scope_(exec.workspace),
        sums_(scope_.Take(DType::kF32, pool_.threads(), cols_ * cols_)) {}

  // Panels of a whole chunk (or of x, where it is shorter).
  Matrix TakePanels() {
    const int64_t steps = std::min(kChunkSteps, Steps(x_.rows));
    return scope_.Take(DType::kF32, panels_, steps * cols_ * (transposed_ ? 2 : 1));
  }

  // Calls body(first token, tokens) for each chunk.
  template <typename Body>
  void ForEachChunk(const Body& body) const {
    for (int64_t begin = 0; begin < x_.rows; begin += chunk_tokens_) {
      body(begin, std::min(chunk_tokens_, x_.rows - begin));
    }
  }

  // Packs tokens [begin, begin + tokens) of `from`, less those of `minus` unless it is empty.
  void Pack(ConstMatrix from, ConstMatrix minus, int64_t begin, int64_t tokens,
            Matrix panels) const {
    const int64_t slices = (Steps(tokens) + kPackSteps - 1) / kPackSteps;
    pool_.ParallelFor(slices * panels_, [&](int64_t task, int) {
      const int64_t panel = task % panels_;
      const int64_t first_step = task / panels_ * kPackSteps;
      const int64_t first = first_step * StepTokens();
      const auto part = [&](ConstMatrix m) {
        return m.Rows(begin + first, 1).Cols(panel * cols_, Width(panel)).data;
      };
      GramPackArgs args;
      args.x = part(from);
      args.x_row = from.stride;
      if (minus.size() != 0) {
        args.minus = part(minus);
        args.minus_row = minus.stride;
      }
      args.bf16 = bf16_;
      args.tokens = std::min(kPackSteps * StepTokens(), tokens - first);
      args.cols = Width(panel);
      args.panel = panels.Row<float>(panel) + first_step * cols_;
      if (transposed_) {
        args.transposed_row = Steps(tokens);
        args.transposed = Transposed(panels, panel, tokens) + first_step;
      }
      kernels_.pack(args);
    });
  }

  // result += a^T b over `tokens` packed tokens: of one block of it.
  void AddBlock(Matrix a, Matrix b, PanelPair pair, int64_t tokens, int thread,
                Matrix result) const {
    GramBlockArgs args;
    args.a = a.Row<float>(pair.i);
    args.b = b.Row<float>(pair.j);
    if (transposed_) {
      args.a_transposed = Transposed(a, pair.i, tokens);
      args.transposed_row = Steps(tokens);
    }
    args.steps = Steps(tokens);
    args.rows = Width(pair.i);
    args.cols = Width(pair.j);
    args.sums = sums_.Row<float>(thread);
    args.gram = result.Row<float>(pair.i * cols_) + pair.j * cols_;
    args.gram_row = result.stride;
    (pairs_ ? kernels_.add_block_pairs : kernels_.add_block)(args);
  }

  ThreadPool& pool() const { return pool_; }
  int64_t panels() const { return panels_; }

 private:
  int64_t StepTokens() const { return pairs_ ? 2 : 1; }
  // Padded where the kernel asks for it.
  int64_t Steps(int64_t tokens) const {
    const int64_t steps = (tokens + StepTokens() - 1) / StepTokens();
    const int64_t unit = transposed_ ? kernels_.step_unit : 1;
    return (steps + unit - 1) / unit * unit;
  }
  // The transposed panel lies behind the panel of `tokens` tokens.
  float* Transposed(Matrix panels, int64_t panel, int64_t tokens) const {
    return panels.Row<float>(panel) + Steps(tokens) * cols_;
  }
  int Width(int64_t panel) const {
    return static_cast<int>(std::min(cols_, x_.cols - panel * cols_));
  }

  ThreadPool& pool_;
  const GramKernels& kernels_;
  const ConstMatrix x_;
  const bool bf16_;
  const bool pairs_;
  const bool transposed_;
  const int64_t cols_;
  const int64_t panels_;
  const int64_t chunk_tokens_;
  Workspace::Scope scope_;
  const Matrix sums_;
};

}  // namespace

void CpuBackend::AddGram(Exec& exec, ConstMatrix x, Matrix gram) {
  CheckAddGram(x, gram);
  if (x.size() == 0) return;
  GramCall call(exec, SelectGramKernels(isa_), x);
  const Matrix packed = call.TakePanels();
  call.ForEachChunk([&](int64_t begin, int64_t tokens) {
    call.Pack(x, {}, begin, tokens, packed);
    const int64_t panels = call.panels();
    call.pool().ParallelFor(panels * (panels + 1) / 2, [&](int64_t task, int thread) {
      call.AddBlock(packed, packed, PairAt(task, panels), tokens, thread, gram);
    });
  });
}

void CpuBackend::AddCross(Exec& exec, ConstMatrix x, ConstMatrix y, Matrix cross) {
  CheckAddCross(x, y, cross);
  if (x.size() == 0) return;
  GramCall call(exec, SelectGramKernels(isa_), x);
  const Matrix left = call.TakePanels();
  const Matrix right = call.TakePanels();
  call.ForEachChunk([&](int64_t begin, int64_t tokens) {
    call.Pack(x, {}, begin, tokens, left);
    call.Pack(y, x, begin, tokens, right);
    const int64_t panels = call.panels();
    call.pool().ParallelFor(panels * panels, [&](int64_t task, int thread) {
      call.AddBlock(left, right, {task / panels, task % panels}, tokens, thread, cross);
    });
  });
}

}  // namespace quantmill::cpu
