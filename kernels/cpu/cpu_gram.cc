// AddGram and AddCross of the cpu backend: a chunk of tokens is packed into column panels, then
// each pair of panels adds its block of the product.
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
// Right factors that a task multiplies with one left factor. Tasks with the same ones follow each
// other: they stay in L2 while all left factors pass.
constexpr int64_t kStrip = 4;

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

  // result += a^T b over `tokens` packed tokens. `symmetric`: a is b; of the upper triangle alone.
  void AddProduct(Matrix a, Matrix b, bool symmetric, int64_t tokens, Matrix result) const {
    const int64_t strips = (panels_ + kStrip - 1) / kStrip;
    pool_.ParallelFor(strips * panels_, [&](int64_t task, int thread) {
      const int64_t i = task % panels_;
      const int64_t first = task / panels_ * kStrip;
      const int64_t end = std::min(panels_, first + kStrip);
      for (int64_t j = symmetric ? std::max(i, first) : first; j < end; ++j) {
        GramBlockArgs args;
        args.a = a.Row<float>(i);
        args.b = b.Row<float>(j);
        args.diagonal = symmetric && i == j;
        args.steps = Steps(tokens);
        args.rows = Width(i);
        args.cols = Width(j);
        args.sums = sums_.Row<float>(thread);
        args.gram = result.Row<float>(i * cols_) + j * cols_;
        args.gram_row = result.stride;
        form_.add_block(args);
      }
    });
  }

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
    call.AddProduct(packed.left, packed.right, /*symmetric=*/true, tokens, gram);
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
    call.AddProduct(left.left, right.right, /*symmetric=*/false, tokens, cross);
  });
}

}  // namespace quantmill::cpu
