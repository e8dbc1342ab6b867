#include "kernels/op_checks.h"

#include <string_view>

#include "kernels/core/error.h"
#include "kernels/core/permutation.h"

namespace quantmill {
namespace {

bool IsF32(ConstMatrix m) { return m.dtype == DType::kF32; }
bool IsF32OrBF16(ConstMatrix m) { return IsF32(m) || m.dtype == DType::kBF16; }
bool HasShape(ConstMatrix m, int64_t rows, int64_t cols) {
  return m.rows == rows && m.cols == cols;
}
bool SameShape(ConstMatrix a, ConstMatrix b) { return HasShape(a, b.rows, b.cols); }

// [rows, cols] F32.
void CheckF32(ConstMatrix m, int64_t rows, int64_t cols, std::string_view message) {
  Check(IsF32(m) && HasShape(m, rows, cols), message);
}

void CheckIndices(std::span<const int32_t> indices, int64_t count, std::string_view message) {
  for (const int32_t index : indices) Check(index >= 0 && index < count, message);
}

void CheckTargets(std::span<const int32_t> targets, ConstMatrix logits) {
  Check(std::ssize(targets) == logits.rows, "scores: one target per row");
  CheckIndices(targets, logits.cols, "scores: a target outside the vocabulary");
}

void CheckLayer(const KvShape& shape, int64_t layer) {
  Check(layer >= 0 && layer < shape.layers, "attention: no such layer in the store");
}

void CheckProblem(const GptqProblem& problem, ConstMatrix codes) {
  const int64_t in = problem.weight.cols;
  CheckGrid(problem.weight, problem.scheme, problem.scales, problem.zero_points);
  CheckF32(problem.factor, in, in, "GptqProblem: factor is [in, in] F32");
  CheckPermutation(problem.order, in);
  Check(codes.dtype == DType::kI8 && SameShape(codes, problem.weight),
        "GptqProblem: codes are [out, in] I8");
}

}  // namespace

void CheckEmbedRows(ConstMatrix table, std::span<const int32_t> ids, ConstMatrix out) {
  Check(IsDenseFloat(table.dtype), "EmbedRows: table is F32, F16 or BF16");
  CheckF32(out, std::ssize(ids), table.cols, "EmbedRows: out is [ids, hidden] F32");
  CheckIndices(ids, table.rows, "EmbedRows: id outside the table");
}

void CheckAddRows(ConstMatrix table, std::span<const int32_t> ids, ConstMatrix out) {
  Check(IsDenseFloat(table.dtype), "AddRows: table is F32, F16 or BF16");
  CheckF32(out, std::ssize(ids), table.cols, "AddRows: out is [ids, hidden] F32");
  CheckIndices(ids, table.rows, "AddRows: id outside the table");
}

void CheckConvert(ConstMatrix x, ConstMatrix out) {
  Check(IsF32(x) && IsF32OrBF16(out), "Convert: x is F32, out F32 or BF16");
  Check(SameShape(x, out), "Convert: shapes differ");
}

void CheckNorm(ConstMatrix x, const NormParams& params, ConstMatrix out) {
  Check(IsF32(x) && IsF32OrBF16(out), "Norm: x is F32, out F32 or BF16");
  Check(SameShape(x, out), "Norm: shapes differ");
  CheckF32(params.gain, 1, x.cols, "Norm: gain is [1, features] F32");
  if (params.bias.size() == 0) return;
  CheckF32(params.bias, 1, x.cols, "Norm: bias is [1, features] F32");
  Check(params.kind == NormKind::kLayer, "Norm: RMS norm has no bias");
}

void CheckMatMul(ConstMatrix x, const PackedLinear& w, ConstMatrix bias, MatMulMode mode,
                 ConstMatrix y) {
  Check(x.dtype == ActivationType(w.compute()), "MatMul: x is not of the weight's compute type");
  Check(x.cols == w.in() && HasShape(y, x.rows, w.out()), "MatMul: shapes differ");
  if (bias.size() > 0) CheckF32(bias, 1, w.out(), "MatMul: bias is [1, out] F32 or empty");
  Check(IsF32(y) || (y.dtype == DType::kBF16 && mode == MatMulMode::kStore),
        "MatMul: y is F32, or BF16 with kStore");
}

void CheckRope(const BatchPlan& plan, const RopeParams& params, ConstMatrix x) {
  Check(IsF32(x) && x.rows == plan.tokens(), "Rope: x is [tokens, ...] F32");
  Check(params.head_dim > 0 && x.cols % params.head_dim == 0, "Rope: x has no whole heads");
  Check(params.rotary_dim % 2 == 0 && params.rotary_dim <= params.head_dim &&
            std::ssize(params.inv_freq) == params.rotary_dim / 2,
        "Rope: rotary_dim is even, at most head_dim, with half as many frequencies");
}

void CheckGatedActivation(ConstMatrix gate, ConstMatrix up, ConstMatrix out) {
  const bool gated = up.data != nullptr;
  Check(IsF32(gate) && (!gated || IsF32(up)) && IsF32OrBF16(out),
        "GatedActivation: gate and up are F32, out F32 or BF16");
  Check(SameShape(gate, out) && (!gated || SameShape(gate, up)), "GatedActivation: shapes differ");
}

void CheckGatherRows(ConstMatrix x, std::span<const int32_t> rows, ConstMatrix out) {
  Check(out.dtype == x.dtype && HasShape(out, std::ssize(rows), x.cols),
        "GatherRows: out is [rows, features] of x's type");
  CheckIndices(rows, x.rows, "GatherRows: no such row");
}

void CheckScatterAdd(ConstMatrix x, std::span<const int32_t> rows, std::span<const float> factors,
                     ConstMatrix y) {
  Check(IsF32(x) && IsF32(y) && x.cols == y.cols, "ScatterAdd: x and y are F32 of one width");
  Check(std::ssize(rows) == x.rows && std::ssize(factors) == x.rows,
        "ScatterAdd: one row and one factor for each of x");
  CheckIndices(rows, y.rows, "ScatterAdd: no such row");
}

void CheckNewKvStore(const KvShape& shape) {
  Check(shape.dtype == DType::kF32 || shape.dtype == DType::kBF16, "NewKvStore: F32 or BF16");
  Check(shape.layers >= 0 && shape.blocks >= 0 && shape.kv_heads > 0 && shape.head_dim > 0,
        "NewKvStore: bad shape");
  Check(!UnsupportedKv(shape.scheme.type, shape.head_dim), "NewKvStore: head_dim of kInt4");
  for (const std::vector<float>* scales : {&shape.key_scales, &shape.value_scales}) {
    Check(scales->empty() || std::ssize(*scales) == shape.layers * shape.kv_heads,
          "NewKvStore: scales are [layers * kv_heads]");
  }
}

void CheckCopyKvBlock(const KvShape& shape, int32_t from, int32_t to) {
  Check(from >= 0 && from < shape.blocks && to >= 0 && to < shape.blocks,
        "CopyKvBlock: no such block");
}

int64_t CheckSequenceStep(const SequenceStep& step, int64_t rows) {
  Check(step.tokens >= 0 && step.context >= 0, "PlanBatch: negative length");
  Check(step.first_row == rows || step.tokens == 0,
        "PlanBatch: sequences must follow each other without gaps");
  if (step.tokens == 0) return 0;
  const int64_t blocks = (step.context + step.tokens + kKvBlockTokens - 1) / kKvBlockTokens;
  Check(std::ssize(step.block_table) >= blocks,
        "PlanBatch: a block table does not cover its sequence");
  return blocks;
}

void CheckAppendKv(const BatchPlan& plan, const KvShape& shape, int64_t layer, ConstMatrix k,
                   ConstMatrix v) {
  CheckLayer(shape, layer);
  const int64_t width = shape.kv_heads * shape.head_dim;
  CheckF32(k, plan.tokens(), width, "AppendKv: k is [tokens, kv_heads * head_dim] F32");
  CheckF32(v, plan.tokens(), width, "AppendKv: v is [tokens, kv_heads * head_dim] F32");
}

void CheckAttention(const BatchPlan& plan, const KvShape& shape, int64_t layer,
                    const AttentionParams& params, ConstMatrix q, ConstMatrix out) {
  CheckLayer(shape, layer);
  Check(params.kv_heads == shape.kv_heads && params.head_dim == shape.head_dim,
        "Attention: the store has another shape");
  Check(params.heads > 0 && params.heads % params.kv_heads == 0,
        "Attention: heads is not a multiple of kv_heads");
  Check(params.alibi_slopes.empty() || std::ssize(params.alibi_slopes) == params.heads,
        "Attention: one slope for each head");
  Check(params.sliding_window >= 0 && params.softcap >= 0, "Attention: negative parameter");
  CheckF32(q, plan.tokens(), params.heads * params.head_dim,
           "Attention: q is [tokens, heads * head_dim] F32");
  Check(IsF32OrBF16(out) && SameShape(q, out), "Attention: out is of q's shape, F32 or BF16");
}

void CheckScoreLogits(ConstMatrix logits, std::span<const int32_t> targets,
                      std::span<const TokenScore> scores) {
  Check(IsF32(logits), "ScoreLogits: logits are F32");
  CheckTargets(targets, logits);
  Check(scores.size() == targets.size(), "ScoreLogits: one score per row");
}

void CheckCompareLogits(ConstMatrix reference, ConstMatrix test, std::span<const int32_t> targets,
                        std::span<const TokenComparison> scores) {
  Check(IsF32(reference) && IsF32(test), "CompareLogits: logits are F32");
  Check(SameShape(reference, test), "CompareLogits: shapes differ");
  CheckTargets(targets, reference);
  Check(scores.size() == targets.size(), "CompareLogits: one score per row");
}

void CheckSoftCap(float cap, ConstMatrix logits) {
  Check(IsF32(logits), "SoftCap: logits are F32");
  Check(cap > 0, "SoftCap: the cap is positive");
}

void CheckAddGram(ConstMatrix x, ConstMatrix gram) {
  Check(IsF32OrBF16(x), "AddGram: x is F32 or BF16");
  CheckF32(gram, x.cols, x.cols, "AddGram: gram is [in, in] F32");
}

void CheckAddRange(ConstMatrix x, ConstMatrix range) {
  Check(IsF32OrBF16(x), "AddRange: x is F32 or BF16");
  CheckF32(range, 2, x.cols, "AddRange: range is [2, in] F32");
}

void CheckAddCross(ConstMatrix x, ConstMatrix y, ConstMatrix cross) {
  Check(IsF32OrBF16(x), "AddCross: x is F32 or BF16");
  Check(y.dtype == x.dtype && SameShape(x, y), "AddCross: x and y differ");
  CheckF32(cross, x.cols, x.cols, "AddCross: cross is [in, in] F32");
}

void CheckMinMaxGrid(ConstMatrix weight, const QuantScheme& scheme, ConstMatrix scales,
                     ConstMatrix zero_points) {
  CheckGrid(weight, scheme, scales, zero_points);
  Check(IsDenseFloat(scheme.scale_dtype), "MinMaxGrid: scales are rounded to F32, F16 or BF16");
}

void CheckRoundToGrid(ConstMatrix weight, const QuantScheme& scheme, ConstMatrix scales,
                      ConstMatrix zero_points, ConstMatrix codes) {
  CheckGrid(weight, scheme, scales, zero_points);
  Check(codes.dtype == DType::kI8 && SameShape(codes, weight),
        "RoundToGrid: codes are [out, in] I8");
}

void CheckSearchGrid(ConstMatrix weight, ConstMatrix blocks, const QuantScheme& scheme,
                     const GridSearch& search, ConstMatrix scales, ConstMatrix zero_points) {
  CheckGrid(weight, scheme, scales, zero_points);
  Check(IsF32(blocks) && blocks.rows == weight.cols, "SearchGrid: blocks are [in, block] F32");
  Check(
      scales.cols == 1 || (blocks.cols > 0 && scheme.GroupSizeFor(weight.cols) % blocks.cols == 0),
      "SearchGrid: the block divides the group");
  const bool two_sided = scheme.code_type == CodeType::kInt || scheme.code_type == CodeType::kIq4Nl;
  Check(!search.mirror || (scheme.symmetric && two_sided),
        "SearchGrid: mirrored grids are symmetric, of numbers with more on one side");
}

void CheckPermuteGram(std::span<const int32_t> order, ConstMatrix gram) {
  CheckF32(gram, gram.rows, gram.rows, "PermuteGram: gram is [in, in] F32");
  CheckPermutation(order, gram.rows);
}

void CheckFactorGram(ConstMatrix diagonal, ConstMatrix gram) {
  CheckF32(gram, gram.rows, gram.rows, "FactorGram: gram is [in, in] F32");
  CheckF32(diagonal, 1, gram.rows, "FactorGram: diagonal is [1, in] F32");
}

void CheckSolveGram(ConstMatrix factor, std::span<const int32_t> order, ConstMatrix x) {
  CheckF32(factor, factor.rows, factor.rows, "SolveGram: factor is [in, in] F32");
  CheckF32(x, x.rows, factor.rows, "SolveGram: x is [rows, in] F32");
  CheckPermutation(order, factor.rows);
}

void CheckGptqSolve(const GptqProblem& problem, ConstMatrix codes, ConstMatrix loss) {
  CheckProblem(problem, codes);
  CheckF32(loss, 1, problem.weight.rows, "GptqSolve: loss is [1, out] F32");
}

void CheckRefineCodes(const GptqProblem& problem, ConstMatrix diagonal, ConstMatrix codes) {
  CheckProblem(problem, codes);
  CheckF32(diagonal, 1, problem.weight.cols, "RefineCodes: diagonal is [1, in] F32");
}

void CheckQuadraticForm(ConstMatrix delta, ConstMatrix gram, ConstMatrix diagonal,
                        ConstMatrix result) {
  const int64_t in = delta.cols;
  Check(IsF32(delta), "QuadraticForm: delta is [out, in] F32");
  CheckF32(gram, in, in, "QuadraticForm: gram is [in, in] F32");
  CheckF32(diagonal, 1, in, "QuadraticForm: diagonal is [1, in] F32");
  CheckF32(result, 1, delta.rows, "QuadraticForm: result is [1, out] F32");
}

}  // namespace quantmill
