#include "quant/transform/awq.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "quant/solve/scale_search.h"
#include "quant/transform/expected_error.h"
#include "quant/transform/rounding_score.h"
#include "tests/quant/transform/problems.h"
#include "tests/support/backends.h"

namespace quantmill::test {
namespace {

// H = sum x^T x / tokens, upper triangle; NaN below, which nobody may read.
Tensor GramOf(ConstMatrix inputs) {
  Tensor gram = HostTensor(DType::kF32, inputs.cols, inputs.cols);
  for (int64_t i = 0; i < inputs.cols; ++i) {
    for (int64_t j = 0; j < inputs.cols; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < inputs.rows; ++t) {
        const auto* x = inputs.Row<float>(t);
        sum += static_cast<double>(x[i]) * static_cast<double>(x[j]);
      }
      gram.Row<float>(i)[j] =
          i <= j ? static_cast<float>(sum / static_cast<double>(inputs.rows)) : std::nanf("");
    }
  }
  return gram;
}

class AwqTest : public testing::Test {
 protected:
  AwqTest() : run_(CpuBackend(AvailableIsas().front(), 2)) {}
  BackendRun run_;
};

TEST_F(AwqTest, CandidatesOfAHandWorkedCase) {
  FoldProblem problem;
  problem.scheme = IntScheme(4, true, 2);
  problem.weight = HostTensor(DType::kF32, 1, 2);
  problem.weight.Row<float>(0)[0] = 1;
  problem.weight.Row<float>(0)[1] = -0.25f;
  problem.scale_of = {0, 1};
  problem.scales = 2;
  problem.mean_square = problem.importance = {16, 1};
  const auto candidates = AwqCandidates(problem);
  ASSERT_EQ(candidates.size(), 39u);  // 19 without, 20 with duo scaling
  // x = (4, 1), a = 1: (4, 1) / 2, with duo scaling as well.
  EXPECT_EQ(candidates[18], (std::vector<float>{2, 0.5f}));
  EXPECT_EQ(candidates[38], (std::vector<float>{2, 0.5f}));
  // Duo, a = 0: 1 / w of w = (1, 1/4), normalized.
  EXPECT_NEAR(candidates[19][0], 0.5, 0.5 * 0x1p-8);
  EXPECT_NEAR(candidates[19][1], 2, 2 * 0x1p-8);
}

// The score is tr(dW H dW^T) of the rounding that the backend does.
TEST_F(AwqTest, ScoreIsTheOutputErrorOnTheTokens) {
  Random random(1);
  for (const bool symmetric : {true, false}) {
    const RandomProblem made =
        MakeProblem(random, IntScheme(4, symmetric, 16), 12, WithOutliers(32, 4, 10), 80);
    const Tensor gram = run_.OnDevice(GramOf(made.inputs));
    RoundingScore score(run_.backend(), run_.exec(), made.problem, gram);
    // Powers of two: the scaled weights round as themselves where a group shares one.
    const std::vector<float> twos(32, 2.0f);
    const double plain = score.OnSmallestGrid(Ones(made.problem));
    EXPECT_NEAR(score.OnSmallestGrid(twos), plain, 1e-5 * plain);
    const double expected = ExpectedError(made.problem).At(Ones(made.problem)).total();
    EXPECT_NEAR(plain / expected, 1, 0.35) << symmetric;
  }
}

// Scaling all inputs alike scales their Gram blocks alike: the search finds the same grid.
TEST_F(AwqTest, TheSearchedGridIsThatOfTheScaledInputs) {
  Random random(6);
  for (const bool symmetric : {true, false}) {
    const RandomProblem made =
        MakeProblem(random, IntScheme(3, symmetric, 16), 12, WithOutliers(32, 4, 10), 80);
    const Tensor gram = run_.OnDevice(GramOf(made.inputs));
    const Tensor blocks = GramBlocks(run_.backend(), run_.exec(), gram, made.problem.scheme);
    RoundingScore score(run_.backend(), run_.exec(), made.problem, gram);
    const double plain = score.OnSearchedGrid(Ones(made.problem), blocks);
    EXPECT_LT(plain, score.OnSmallestGrid(Ones(made.problem)));
    EXPECT_NEAR(score.OnSearchedGrid(std::vector<float>(32, 2.0f), blocks), plain, 1e-5 * plain);
    // Were the blocks not scaled, a channel that is scaled up would weigh what it does not.
    std::vector<float> scales = Ones(made.problem);
    for (size_t i = 0; i < 32; ++i) scales[i] = i % 2 == 0 ? 4.0f : 0.25f;
    const Tensor scaled = ScaledBlocks(run_.backend(), run_.exec(), blocks, scales);
    const Tensor before = run_.OnHost(blocks);
    const Tensor after = run_.OnHost(scaled);
    for (int64_t i = 0; i < 32; ++i) {
      for (int64_t j = 0; j < 16; ++j) {
        const float divisor =
            scales[static_cast<size_t>(i)] * scales[static_cast<size_t>(i / 16 * 16 + j)];
        EXPECT_EQ(after.Row<float>(i)[j], before.Row<float>(i)[j] / divisor) << i << ", " << j;
      }
    }
  }
}

TEST_F(AwqTest, WithoutGramTheScoreWeighsColumns) {
  Random random(3);
  RandomProblem made = MakeProblem(random, IntScheme(4, true, 16), 12, WithOutliers(32, 4, 1), 80);
  std::fill(made.problem.importance.begin(), made.problem.importance.end(), 0.0f);
  made.problem.importance[3] = 2;
  RoundingScore score(run_.backend(), run_.exec(), made.problem, {});
  const double before = score.OnSmallestGrid(Ones(made.problem));
  std::vector<float> scales = Ones(made.problem);
  scales[3] = 16;  // column 3 now decides the scale of its group
  EXPECT_GT(before, 0);
  EXPECT_LT(score.OnSmallestGrid(scales), before);
}

// Salient channels planted: AWQ's best beats identity clearly, the balanced scales more so.
TEST_F(AwqTest, SalientChannelsAreProtected) {
  Random random(4);
  const RandomProblem made =
      MakeProblem(random, IntScheme(4, false, 32), 64, WithOutliers(128, 4, 25), 200);
  const Tensor gram = run_.OnDevice(GramOf(made.inputs));
  RoundingScore score(run_.backend(), run_.exec(), made.problem, gram);
  const double identity = score.OnSmallestGrid(Ones(made.problem));
  double least = identity;
  std::vector<float> best;
  for (const std::vector<float>& candidate : AwqCandidates(made.problem)) {
    const double error = score.OnSmallestGrid(candidate);
    if (error >= least) continue;
    least = error;
    best = candidate;
  }
  ASSERT_FALSE(best.empty());
  EXPECT_LT(least, 0.4 * identity);
  EXPECT_LT(score.OnSmallestGrid(ExpectedError(made.problem).Balance(best)), least);
}

}  // namespace
}  // namespace quantmill::test
