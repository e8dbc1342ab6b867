#include "quant/runtime/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

TEST(Sampler, GreedyTakesTheLowestIdOnTies) {
  Sampler sampler({});
  EXPECT_EQ(sampler.Next(std::vector<float>{1, 3, 3, 2}), 1);
}

TEST(Sampler, FrequenciesFollowTheDistribution) {
  SamplingOptions options;
  options.temperature = 2;
  options.seed = 7;
  Sampler sampler(options);
  const std::vector<float> logits = {0, 2 * std::log(2.0f), 2 * std::log(5.0f)};  // 1 : 2 : 5
  std::vector<int> counts(3);
  constexpr int kDraws = 40000;
  for (int i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(sampler.Next(logits))];
  // Five standard deviations of a binomial share.
  for (const auto& [id, share] : {std::pair{0, 0.125}, {1, 0.25}, {2, 0.625}}) {
    const double tolerance = 5 * std::sqrt(share * (1 - share) / kDraws);
    EXPECT_NEAR(counts[static_cast<size_t>(id)] / double(kDraws), share, tolerance) << id;
  }
}

TEST(Sampler, TopKAndTopPCutTheTail) {
  const std::vector<float> logits = {std::log(1.0f), std::log(2.0f), std::log(5.0f)};
  SamplingOptions options;
  options.temperature = 1;
  options.top_k = 2;
  Sampler top_k(options);
  options.top_k = 0;
  options.top_p = 0.6;  // 5/8 reaches it alone
  Sampler top_p(options);
  for (int i = 0; i < 1000; ++i) {
    EXPECT_NE(top_k.Next(logits), 0);
    EXPECT_EQ(top_p.Next(logits), 2);
  }
}

TEST(Sampler, SeedsRepeatAndDiffer) {
  const std::vector<float> logits(50, 0.0f);
  SamplingOptions options;
  options.temperature = 1;
  options.seed = 1;
  Sampler a(options), b(options);
  options.seed = 2;
  Sampler c(options);
  int same_seed = 0, other_seed = 0;
  for (int i = 0; i < 100; ++i) {
    const int32_t id = a.Next(logits);
    same_seed += id == b.Next(logits);
    other_seed += id == c.Next(logits);
  }
  EXPECT_EQ(same_seed, 100);
  EXPECT_LT(other_seed, 20);
}

TEST(Sampler, RefusesBadOptionsAndLogits) {
  SamplingOptions options;
  options.temperature = -1;
  EXPECT_THROW(Sampler{options}, Error);
  options.temperature = 1;
  options.top_p = 0;
  EXPECT_THROW(Sampler{options}, Error);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(Sampler({}).Next(std::vector<float>{1, nan}), Error);
}

}  // namespace
}  // namespace quantmill
