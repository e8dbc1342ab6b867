#include "quant/runtime/divergence.h"

#include <gtest/gtest.h>

#include <cmath>

namespace quantmill {
namespace {

TEST(Interval, OneWindowHasNoWidth) {
  const Interval interval = IntervalOverWindows(std::vector<double>{2.0});
  EXPECT_EQ(interval.mean, 2.0);
  EXPECT_EQ(interval.half_width, 0.0);
  EXPECT_EQ(interval.windows, 1);
}

TEST(Interval, StudentsT) {
  // Mean 2, standard deviation 1, three windows: 4.303 / sqrt(3).
  const Interval interval = IntervalOverWindows(std::vector<double>{1, 2, 3});
  EXPECT_NEAR(interval.half_width, 4.303 / std::sqrt(3.0), 1e-3);
  // 31 windows: t(30) = 2.0423.
  std::vector<double> many;
  many.reserve(31);
  for (int i = 0; i < 31; ++i) many.push_back(i);
  const double deviation = std::sqrt(31.0 * 32.0 / 12.0);
  EXPECT_NEAR(IntervalOverWindows(many).half_width, 2.0423 * deviation / std::sqrt(31.0), 0.01);
}

TEST(ScoreAccumulator, Perplexity) {
  ScoreAccumulator scores;
  scores.AddWindow(std::vector<TokenScore>{{-1.0, 0}, {-2.0, 0}});
  scores.AddWindow(std::vector<TokenScore>{{-3.0, 0}, {-4.0, 0}});
  const PerplexityResult result = scores.Result();
  EXPECT_EQ(result.tokens, 4);
  EXPECT_DOUBLE_EQ(result.perplexity, std::exp(2.5));
  // Window means 1.5 and 3.5: half width 12.706 * sqrt(2) / sqrt(2).
  EXPECT_NEAR(std::log(result.high) - 2.5, 12.706, 1e-3);
  EXPECT_NEAR(2.5 - std::log(result.low), 12.706, 1e-3);
}

TEST(DivergenceAccumulator, CountsByHand) {
  DivergenceAccumulator divergence;
  // {reference, test, kl}; targets 5, 6, 7, 8.
  const std::vector<TokenComparison> scores = {
      {{-1.0, 5}, {-1.5, 5}, 0.1},  // both right
      {{-1.0, 6}, {-2.0, 9}, 0.2},  // right, then wrong: a flip
      {{-3.0, 1}, {-3.0, 7}, 0.3},  // wrong, then right: a flip
      {{-2.0, 2}, {-1.0, 3}, 0.4},  // both wrong, differently: disagreement, no flip
  };
  divergence.AddWindow(scores, std::vector<int32_t>{5, 6, 7, 8});
  const DivergenceResult result = divergence.Result();
  EXPECT_NEAR(result.kl_mean, 0.25, 1e-12);
  EXPECT_NEAR(result.kl_p99, 0.4, 1e-6);
  EXPECT_NEAR(result.kl_max, 0.4, 1e-6);
  EXPECT_EQ(result.top1_agreement, 0.25);
  EXPECT_EQ(result.flips, 0.5);
  EXPECT_NEAR(result.delta_nll, (0.5 + 1 + 0 - 1) / 4, 1e-12);
}

TEST(DivergenceAccumulator, NearestRankPercentile) {
  DivergenceAccumulator divergence;
  std::vector<TokenComparison> scores(200);
  for (int i = 0; i < 200; ++i) scores[static_cast<size_t>(i)].kl = 200 - i;
  divergence.AddWindow(scores, std::vector<int32_t>(200, 0));
  EXPECT_EQ(divergence.Result().kl_p99, 198);  // ceil(0.99 * 200) = 198th smallest
}

TEST(Accumulators, EmptyIsNotANumberButZero) {
  EXPECT_EQ(ScoreAccumulator().Result().tokens, 0);
  EXPECT_EQ(DivergenceAccumulator().Result().kl_mean, 0);
}

}  // namespace
}  // namespace quantmill
