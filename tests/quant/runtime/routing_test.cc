#include "quant/runtime/routing.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace quantmill {
namespace {

std::vector<ExpertTokens> Route(const std::vector<float>& logits, int64_t experts, int64_t top_k,
                                bool renormalize) {
  const auto tokens = std::ssize(logits) / experts;
  return RouteTokens(ViewOf(logits.data(), tokens, experts), top_k, renormalize);
}

// Odds of 1 : 2 : 4 : 1 and 8 : 4 : 2 : 2.
const std::vector<float> kLogits = {0,
                                    std::log(2.0f),
                                    std::log(4.0f),
                                    0,  //
                                    std::log(8.0f),
                                    std::log(4.0f),
                                    std::log(2.0f),
                                    std::log(2.0f)};
constexpr float kClose = 1e-6f;  // a few roundings of F32

TEST(RoutingTest, ByHand) {
  const auto experts = Route(kLogits, 4, 2, false);
  ASSERT_EQ(experts.size(), 4u);
  EXPECT_EQ(experts[0].rows, (std::vector<int32_t>{1}));
  EXPECT_EQ(experts[1].rows, (std::vector<int32_t>{0, 1}));
  EXPECT_EQ(experts[2].rows, (std::vector<int32_t>{0}));
  EXPECT_TRUE(experts[3].rows.empty());
  EXPECT_NEAR(experts[0].factors[0], 0.5f, kClose);
  EXPECT_NEAR(experts[1].factors[0], 0.25f, kClose);
  EXPECT_NEAR(experts[1].factors[1], 0.25f, kClose);
  EXPECT_NEAR(experts[2].factors[0], 0.5f, kClose);
}

TEST(RoutingTest, RenormalizedFactorsSumToOne) {
  const auto experts = Route(kLogits, 4, 2, true);
  EXPECT_NEAR(experts[0].factors[0], 2.0f / 3, kClose);
  EXPECT_NEAR(experts[1].factors[0], 1.0f / 3, kClose);
  EXPECT_NEAR(experts[1].factors[1], 1.0f / 3, kClose);
  EXPECT_NEAR(experts[2].factors[0], 2.0f / 3, kClose);
}

TEST(RoutingTest, LowestNumberWinsTies) {
  const auto experts = Route({1, 3, 3, 3, 0}, 5, 2, true);
  EXPECT_EQ(experts[1].factors, std::vector<float>{0.5f});
  EXPECT_EQ(experts[2].factors, std::vector<float>{0.5f});
  EXPECT_TRUE(experts[3].rows.empty());
}

TEST(RoutingTest, AllExpertsMayBeChosen) {
  const auto experts = Route(kLogits, 4, 4, false);
  for (const ExpertTokens& expert : experts) EXPECT_EQ(expert.rows.size(), 2u);
  EXPECT_NEAR(experts[3].factors[0], 0.125f, kClose);
}

TEST(RoutingTest, LargeLogitsDoNotOverflow) {
  const auto experts = Route({30000, 29999, -30000}, 3, 2, false);
  EXPECT_NEAR(experts[0].factors[0], 1 / (1 + std::exp(-1.0f)), kClose);
  EXPECT_TRUE(experts[2].rows.empty());
}

TEST(RoutingTest, NanStaysInItsToken) {
  std::vector<float> logits = kLogits;
  logits[1] = std::numeric_limits<float>::quiet_NaN();
  const auto experts = Route(logits, 4, 2, true);
  size_t poisoned = 0;
  for (const ExpertTokens& expert : experts) {
    ASSERT_EQ(expert.rows.size(), expert.factors.size());
    for (size_t i = 0; i < expert.rows.size(); ++i) {
      EXPECT_EQ(std::isnan(expert.factors[i]), expert.rows[i] == 0);
      poisoned += expert.rows[i] == 0 ? 1 : 0;
    }
  }
  EXPECT_EQ(poisoned, 2u);
}

TEST(RoutingTest, NoTokens) {
  const auto experts = Route({}, 4, 2, true);
  ASSERT_EQ(experts.size(), 4u);
  for (const ExpertTokens& expert : experts) EXPECT_TRUE(expert.rows.empty());
}

}  // namespace
}  // namespace quantmill
