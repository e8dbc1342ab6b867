// AddGram of the cpu backend: a chunk of tokens is packed into column panels, then each pair of
// panels (I <= J) is one task that adds its block of x^T x to gram.
#include <algorithm>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/gram_kernels.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {

QUANTMILL_DEFINE_ISA_TABLE(GramKernels, kGramKernels)

namespace {

// Steps per chunk, of all parts together (1024 tokens, 2048 as pairs, 672 as pairs of parts).
// Fixed, because it decides how sums are rounded; long enough that reading and writing gram once
// per chunk costs little.
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

// A chunk as both factors; one and the same where the kernels read them alike.
struct PackedChunk {
  Matrix left;   // empty: not wanted
  Matrix right;  // likewise
};

// Sums of products of tokens, chunk by chunk.
class GramCall {
 public:
  GramCall(Exec& exec, const GramKernels& kernels, ConstMatrix x)
      : pool_(PoolOf(exec)),
        form_(x.dtype == DType::kBF16 ? kernels.bf16 : kernels.f32),
        x_(x),
        cols_(kernels.panel_cols),
        panels_((x.cols + cols_ - 1) / cols_),
        chunk_tokens_(kChunkSteps / form_.parts / form_.step_unit * form_.step_unit *
                      form_.step_tokens),
        scope_(exec.workspace),
        sums_(scope_.Take(DType::kF32, pool_.threads(), cols_ * cols_)) {}

  // Memory for a whole chunk (or for x, where it is shorter) as one factor or both.
  Matrix TakePanels() {
    return scope_.Take(DType::kF32, panels_,
                       StepFloats() * Steps(std::min(chunk_tokens_, x_.rows)));
  }
  PackedChunk TakeLeft() { return {TakePanels(), {}}; }
  PackedChunk TakeRight() { return {{}, TakePanels()}; }
  PackedChunk TakeBoth() {
    const Matrix right = TakePanels();
    return {form_.transposed ? TakePanels() : right, right};
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
            const PackedChunk& packed) const {
    const int64_t slices = (Steps(tokens) + kPackSteps - 1) / kPackSteps;
    pool_.ParallelFor(slices * panels_, [&](int64_t task, int) {
      const int64_t panel = task % panels_;
      const int64_t first_step = task / panels_ * kPackSteps;
      const int64_t first = first_step * form_.step_tokens;
      const auto part = [&](ConstMatrix m) {
        return m.Rows(begin + first, 1).Cols(panel * cols_, Width(panel)).data;
      };
      const auto at = [&](Matrix panels) {
        return panels.size() == 0 ? nullptr : panels.Row<float>(panel) + first_step * StepFloats();
      };
      GramPackArgs args;
      args.x = part(from);
      args.x_row = from.stride;
      if (minus.size() != 0) {
        args.minus = part(minus);
        args.minus_row = minus.stride;
      }
      args.tokens = std::min(kPackSteps * form_.step_tokens, tokens - first);
      args.cols = Width(panel);
      if (form_.transposed) args.left = at(packed.left);
      args.right = at(form_.transposed || packed.left.size() == 0 ? packed.right : packed.left);
      form_.pack(args);
    });
  }

  // result += a^T b over `tokens` packed tokens: of one block of it. `symmetric`: a is b.
  void AddBlock(Matrix a, Matrix b, bool symmetric, PanelPair pair, int64_t tokens, int thread,
                Matrix result) const {
    GramBlockArgs args;
    args.a = a.Row<float>(pair.i);
    args.b = b.Row<float>(pair.j);
    args.diagonal = symmetric && pair.i == pair.j;
    args.steps = Steps(tokens);
    args.rows = Width(pair.i);
    args.cols = Width(pair.j);
    args.sums = sums_.Row<float>(thread);
    args.gram = result.Row<float>(pair.i * cols_) + pair.j * cols_;
    args.gram_row = result.stride;
    form_.add_block(args);
  }

  ThreadPool& pool() const { return pool_; }
  int64_t panels() const { return panels_; }

 private:
  int64_t StepFloats() const { return form_.parts * cols_; }
  int64_t Steps(int64_t tokens) const {
    const int64_t steps = (tokens + form_.step_tokens - 1) / form_.step_tokens;
    return (steps + form_.step_unit - 1) / form_.step_unit * form_.step_unit;
  }
  int Width(int64_t panel) const {
    return static_cast<int>(std::min(cols_, x_.cols - panel * cols_));
  }

  ThreadPool& pool_;
  const GramForm& form_;
  const ConstMatrix x_;
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
  const PackedChunk packed = call.TakeBoth();
  call.ForEachChunk([&](int64_t begin, int64_t tokens) {
    call.Pack(x, {}, begin, tokens, packed);
    const int64_t panels = call.panels();
    call.pool().ParallelFor(panels * (panels + 1) / 2, [&](int64_t task, int thread) {
      call.AddBlock(packed.left, packed.right, /*symmetric=*/true, PairAt(task, panels), tokens,
                    thread, gram);
    });
  });
}

void CpuBackend::AddCross(Exec& exec, ConstMatrix x, ConstMatrix y, Matrix cross) {
  CheckAddCross(x, y, cross);
  if (x.size() == 0) return;
  GramCall call(exec, SelectGramKernels(isa_), x);
  const PackedChunk left = call.TakeLeft();
  const PackedChunk right = call.TakeRight();
  call.ForEachChunk([&](int64_t begin, int64_t tokens) {
    call.Pack(x, {}, begin, tokens, left);
    call.Pack(y, x, begin, tokens, right);
    const int64_t panels = call.panels();
    call.pool().ParallelFor(panels * panels, [&](int64_t task, int thread) {
      call.AddBlock(left.left, right.right, /*symmetric=*/false, {task / panels, task % panels},
                    tokens, thread, cross);
    });
  });
}

}  // namespace quantmill::cpu
