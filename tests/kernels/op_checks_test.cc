// A wrong argument of any op ends the program: each case starts from arguments that pass and spoils
// one of them.
#include "kernels/op_checks.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace quantmill {
namespace {

using OpChecksDeathTest = testing::Test;

// Nothing is read through it.
Matrix Of(int64_t rows, int64_t cols, DType dtype = DType::kF32) {
  static float memory = 0;
  return {&memory, dtype, rows, cols, cols};
}

class Plan : public BatchPlan {
 public:
  int64_t tokens() const override { return 3; }
  int64_t position(int64_t row) const override { return row; }
};

class Linear : public PackedLinear {  // [6, 8]
 public:
  int64_t out() const override { return 6; }
  int64_t in() const override { return 8; }
  int64_t bytes() const override { return 0; }
  Compute compute() const override { return Compute::kF32; }
};

TEST_F(OpChecksDeathTest, Rows) {
  const std::vector<int32_t> ids = {0, 4};
  const std::vector<float> factors = {1, 2};
  CheckEmbedRows(Of(5, 8, DType::kF16), ids, Of(2, 8));
  EXPECT_DEATH(CheckEmbedRows(Of(4, 8), ids, Of(2, 8)), "id outside");
  EXPECT_DEATH(CheckEmbedRows(Of(5, 8), ids, Of(1, 8)), "out is");
  EXPECT_DEATH(CheckEmbedRows(Of(5, 8, DType::kI8), ids, Of(2, 8)), "table is");
  CheckAddRows(Of(5, 8), ids, Of(2, 8));
  EXPECT_DEATH(CheckAddRows(Of(5, 8), std::vector<int32_t>{-1, 0}, Of(2, 8)), "id outside");
  EXPECT_DEATH(CheckAddRows(Of(5, 8), ids, Of(2, 8, DType::kBF16)), "out is");
  CheckGatherRows(Of(5, 8, DType::kBF16), ids, Of(2, 8, DType::kBF16));
  EXPECT_DEATH(CheckGatherRows(Of(5, 8, DType::kBF16), ids, Of(2, 8)), "of x's type");
  EXPECT_DEATH(CheckGatherRows(Of(4, 8), ids, Of(2, 8)), "no such row");
  CheckScatterAdd(Of(2, 8), ids, factors, Of(5, 8));
  EXPECT_DEATH(CheckScatterAdd(Of(2, 8), ids, factors, Of(4, 8)), "no such row");
  EXPECT_DEATH(CheckScatterAdd(Of(2, 8), ids, factors, Of(5, 7)), "one width");
  EXPECT_DEATH(CheckScatterAdd(Of(3, 8), ids, factors, Of(5, 8)), "one factor");
}

TEST_F(OpChecksDeathTest, Elementwise) {
  CheckConvert(Of(3, 8), Of(3, 8, DType::kBF16));
  EXPECT_DEATH(CheckConvert(Of(3, 8), Of(3, 8, DType::kF16)), "Convert");
  EXPECT_DEATH(CheckConvert(Of(3, 8), Of(3, 7)), "Convert: shapes");
  NormParams norm{.kind = NormKind::kLayer, .gain = Of(1, 8), .bias = Of(1, 8)};
  CheckNorm(Of(3, 8), norm, Of(3, 8));
  EXPECT_DEATH(CheckNorm(Of(3, 7), norm, Of(3, 7)), "gain");
  norm.kind = NormKind::kRms;
  EXPECT_DEATH(CheckNorm(Of(3, 8), norm, Of(3, 8)), "no bias");
  CheckGatedActivation(Of(3, 8), {}, Of(3, 8, DType::kBF16));
  CheckGatedActivation(Of(3, 8), Of(3, 8), Of(3, 8));
  EXPECT_DEATH(CheckGatedActivation(Of(3, 8), Of(3, 7), Of(3, 8)), "shapes");
  EXPECT_DEATH(CheckGatedActivation(Of(3, 8), Of(3, 8, DType::kBF16), Of(3, 8)), "F32");
  CheckSoftCap(30, Of(3, 8));
  EXPECT_DEATH(CheckSoftCap(0, Of(3, 8)), "positive");
  EXPECT_DEATH(CheckSoftCap(std::numeric_limits<float>::quiet_NaN(), Of(3, 8)), "positive");
}

TEST_F(OpChecksDeathTest, MatMul) {
  const Linear w;
  CheckMatMul(Of(3, 8), w, {}, MatMulMode::kAdd, Of(3, 6));
  CheckMatMul(Of(3, 8), w, Of(1, 6), MatMulMode::kStore, Of(3, 6, DType::kBF16));
  const auto dies = [&](ConstMatrix x, ConstMatrix bias, MatMulMode mode, ConstMatrix y,
                        const char* message) {
    EXPECT_DEATH(CheckMatMul(x, w, bias, mode, y), message);
  };
  dies(Of(3, 8, DType::kBF16), {}, MatMulMode::kStore, Of(3, 6), "compute type");
  dies(Of(3, 6), {}, MatMulMode::kStore, Of(3, 6), "shapes");
  dies(Of(3, 8), {}, MatMulMode::kStore, Of(2, 6), "shapes");
  dies(Of(3, 8), Of(1, 8), MatMulMode::kStore, Of(3, 6), "bias");
  dies(Of(3, 8), {}, MatMulMode::kAdd, Of(3, 6, DType::kBF16), "BF16 with kStore");
}

TEST_F(OpChecksDeathTest, Rope) {
  const Plan plan;
  const std::vector<float> frequencies = {1, 0.1f};
  RopeParams params{.head_dim = 8, .rotary_dim = 4, .inv_freq = frequencies};
  CheckRope(plan, params, Of(3, 16));
  EXPECT_DEATH(CheckRope(plan, params, Of(2, 16)), "tokens");
  EXPECT_DEATH(CheckRope(plan, params, Of(3, 12)), "whole heads");
  params.rotary_dim = 6;
  EXPECT_DEATH(CheckRope(plan, params, Of(3, 16)), "frequencies");
}

TEST_F(OpChecksDeathTest, KvStore) {
  KvShape shape{.layers = 2, .blocks = 4, .kv_heads = 3, .head_dim = 20};
  CheckNewKvStore(shape);
  shape.key_scales = {1, 2, 3};
  EXPECT_DEATH(CheckNewKvStore(shape), "scales are");
  shape.key_scales = {1, 2, 3, 4, 5, 6};
  CheckNewKvStore(shape);
  shape.scheme.type = KvScheme::Type::kInt4;
  EXPECT_DEATH(CheckNewKvStore(shape), "kInt4");
  CheckCopyKvBlock(shape, 0, 3);
  EXPECT_DEATH(CheckCopyKvBlock(shape, 0, 4), "no such block");
  EXPECT_DEATH(CheckCopyKvBlock(shape, -1, 3), "no such block");
}

TEST_F(OpChecksDeathTest, SequenceStep) {
  const std::vector<int32_t> blocks = {7, 8};
  EXPECT_EQ(CheckSequenceStep({2, 5, 16, blocks}, 2), 2);
  EXPECT_EQ(CheckSequenceStep({0, 16, 0, blocks}, 0), 1);
  EXPECT_EQ(CheckSequenceStep({9, 0, 16, {}}, 2), 0);
  EXPECT_DEATH(CheckSequenceStep({2, 17, 16, blocks}, 2), "cover");
  EXPECT_DEATH(CheckSequenceStep({3, 5, 16, blocks}, 2), "gaps");
  EXPECT_DEATH(CheckSequenceStep({2, -1, 16, blocks}, 2), "negative");
}

TEST_F(OpChecksDeathTest, Attention) {
  const Plan plan;
  const KvShape shape{.layers = 2, .blocks = 4, .kv_heads = 2, .head_dim = 8};
  CheckAppendKv(plan, shape, 1, Of(3, 16), Of(3, 16));
  EXPECT_DEATH(CheckAppendKv(plan, shape, 2, Of(3, 16), Of(3, 16)), "layer");
  EXPECT_DEATH(CheckAppendKv(plan, shape, 1, Of(3, 16), Of(3, 8)), "v is");
  const std::vector<float> slopes = {1, 2, 3};
  const auto check = [&](auto spoil) {
    AttentionParams params{.heads = 4, .kv_heads = 2, .head_dim = 8};
    Matrix q = Of(3, 32);
    Matrix out = Of(3, 32, DType::kBF16);
    spoil(params, q, out);
    CheckAttention(plan, shape, 0, params, q, out);
  };
  using P = AttentionParams;
  check([](P&, Matrix&, Matrix&) {});
  EXPECT_DEATH(check([](P& p, Matrix&, Matrix&) { p.kv_heads = 4; }), "another shape");
  EXPECT_DEATH(check([](P& p, Matrix&, Matrix&) { p.heads = 3; }), "multiple");
  EXPECT_DEATH(check([&](P& p, Matrix&, Matrix&) { p.alibi_slopes = slopes; }), "slope");
  EXPECT_DEATH(check([](P& p, Matrix&, Matrix&) { p.sliding_window = -1; }), "negative");
  EXPECT_DEATH(check([](P&, Matrix& q, Matrix&) { q.rows = 2; }), "q is");
  EXPECT_DEATH(check([](P&, Matrix&, Matrix& out) { out.cols = 16; }), "out is");
}

TEST_F(OpChecksDeathTest, Scores) {
  const std::vector<int32_t> targets = {0, 9};
  const std::vector<TokenScore> scores(2);
  const std::vector<TokenComparison> compared(2);
  CheckScoreLogits(Of(2, 10), targets, scores);
  EXPECT_DEATH(CheckScoreLogits(Of(2, 9), targets, scores), "vocabulary");
  EXPECT_DEATH(CheckScoreLogits(Of(3, 10), targets, scores), "one target");
  EXPECT_DEATH(CheckScoreLogits(Of(2, 10), targets, std::vector<TokenScore>(1)), "one score");
  CheckCompareLogits(Of(2, 10), Of(2, 10), targets, compared);
  EXPECT_DEATH(CheckCompareLogits(Of(2, 10), Of(2, 11), targets, compared), "shapes");
  EXPECT_DEATH(CheckCompareLogits(Of(2, 10), Of(2, 10, DType::kBF16), targets, compared), "F32");
}

TEST_F(OpChecksDeathTest, Statistics) {
  CheckAddGram(Of(3, 8, DType::kBF16), Of(8, 8));
  EXPECT_DEATH(CheckAddGram(Of(3, 8), Of(8, 7)), "gram is");
  EXPECT_DEATH(CheckAddGram(Of(3, 8, DType::kF16), Of(8, 8)), "F32 or BF16");
  CheckAddRange(Of(3, 8), Of(2, 8));
  EXPECT_DEATH(CheckAddRange(Of(3, 8), Of(1, 8)), "range is");
  CheckAddCross(Of(3, 8), Of(3, 8), Of(8, 8));
  EXPECT_DEATH(CheckAddCross(Of(3, 8), Of(3, 8, DType::kBF16), Of(8, 8)), "differ");
}

TEST_F(OpChecksDeathTest, Grids) {
  QuantScheme scheme;
  scheme.group_size = 4;
  CheckMinMaxGrid(Of(6, 8), scheme, Of(6, 2), {});
  EXPECT_DEATH(CheckMinMaxGrid(Of(6, 8), scheme, Of(6, 1), {}), "scales are");
  CheckRoundToGrid(Of(6, 8), scheme, Of(6, 2), {}, Of(6, 8, DType::kI8));
  EXPECT_DEATH(CheckRoundToGrid(Of(6, 8), scheme, Of(6, 2), {}, Of(6, 8)), "codes are");
  GridSearch search;
  CheckSearchGrid(Of(6, 8), Of(8, 2), scheme, search, Of(6, 2), {});
  EXPECT_DEATH(CheckSearchGrid(Of(6, 8), Of(8, 3), scheme, search, Of(6, 2), {}), "divides");
  scheme.symmetric = false;
  search.mirror = true;
  EXPECT_DEATH(CheckSearchGrid(Of(6, 8), Of(8, 2), scheme, search, Of(6, 2), Of(6, 2, DType::kI8)),
               "mirrored");
  scheme.scale_dtype = DType::kF8E8M0;
  EXPECT_DEATH(CheckMinMaxGrid(Of(6, 8), scheme, Of(6, 2), Of(6, 2, DType::kI8)), "rounded to");
}

TEST_F(OpChecksDeathTest, Solving) {
  const std::vector<int32_t> order = {2, 0, 1};
  CheckPermuteGram(order, Of(3, 3));
  EXPECT_DEATH(CheckPermuteGram(order, Of(3, 4)), "gram is");
  EXPECT_DEATH(CheckPermuteGram(std::vector<int32_t>{2, 2, 1}, Of(3, 3)), "repeats");
  CheckFactorGram(Of(1, 3), Of(3, 3));
  EXPECT_DEATH(CheckFactorGram(Of(1, 2), Of(3, 3)), "diagonal");
  CheckSolveGram(Of(3, 3), order, Of(5, 3));
  EXPECT_DEATH(CheckSolveGram(Of(3, 3), order, Of(5, 2)), "x is");
  CheckQuadraticForm(Of(5, 3), Of(3, 3), Of(1, 3), Of(1, 5));
  EXPECT_DEATH(CheckQuadraticForm(Of(5, 3), Of(3, 3), Of(1, 3), Of(1, 3)), "result");

  GptqProblem problem;
  problem.weight = Of(5, 3);
  problem.factor = Of(3, 3);
  problem.order = order;
  problem.scheme.group_size = QuantScheme::kPerChannel;
  problem.scales = Of(5, 1);
  CheckGptqSolve(problem, Of(5, 3, DType::kI8), Of(1, 5));
  CheckRefineCodes(problem, Of(1, 3), Of(5, 3, DType::kI8));
  EXPECT_DEATH(CheckGptqSolve(problem, Of(5, 3), Of(1, 5)), "codes are");
  EXPECT_DEATH(CheckGptqSolve(problem, Of(5, 3, DType::kI8), Of(1, 3)), "loss");
  EXPECT_DEATH(CheckRefineCodes(problem, Of(3, 1), Of(5, 3, DType::kI8)), "diagonal");
  problem.factor = Of(3, 2);
  EXPECT_DEATH(CheckGptqSolve(problem, Of(5, 3, DType::kI8), Of(1, 5)), "factor is");
}

}  // namespace
}  // namespace quantmill
