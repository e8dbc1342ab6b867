#include "quant/runtime/evaluate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "tests/quant/runtime/golden_model.h"

namespace quantmill::test {
namespace {

std::vector<int32_t> Count(int32_t n) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(CutWindows, DropsTheTailAndScoresEveryPrediction) {
  const auto windows = CutWindows(Count(25), {Protocol::kWindows, 10, 0, {}});
  ASSERT_EQ(windows.size(), 2u);
  EXPECT_EQ(windows[1].ids.front(), 10);
  EXPECT_EQ(windows[1].ids.back(), 19);
  EXPECT_EQ(windows[1].first_scored, 0);
}

TEST(CutWindows, LlamaCppScoresTheSecondHalfAfterBos) {
  const auto windows = CutWindows(Count(25), {Protocol::kLlamaCpp, 10, 1, 77});
  ASSERT_EQ(windows.size(), 1u);
  EXPECT_EQ(windows[0].ids[0], 77);
  EXPECT_EQ(windows[0].ids[1], 1);
  EXPECT_EQ(windows[0].first_scored, 5);
  EXPECT_EQ(CutWindows(Count(25), {Protocol::kLlamaCpp, 10, 1, {}})[0].ids[0], 0);
}

TEST(CutWindows, ShortTextIsAnError) {
  EXPECT_THROW(CutWindows(Count(9), {Protocol::kWindows, 10, 0, {}}), Error);
  EXPECT_THROW(CutWindows({}, {Protocol::kWindows, 2, 0, {}}), Error);
  EXPECT_THROW(CutWindows(Count(9), {Protocol::kWindows, 1, 0, {}}), Error);
}

class EvaluateTest : public testing::Test {
 protected:
  EvaluateTest() : run_(CpuBackend(AvailableIsas().front(), 2)) {}
  BackendRun run_;
};

// Perplexity from transformers' own logits, in double.
TEST_F(EvaluateTest, PerplexityMatchesTheGoldenLogits) {
  const Expected expected = ReadExpected("llama_gqa");
  const ModelSource source = ModelSource::Open(GoldenFolder("llama_gqa"));
  DecoderModel model(run_.backend(), run_.exec(), source, Compute::kF32);
  const auto vocab = static_cast<size_t>(source.spec().vocab);
  double nll = 0;
  const size_t scored = expected.ids.size() - 1;
  for (size_t t = 0; t < scored; ++t) {
    double sum = 0;
    for (size_t v = 0; v < vocab; ++v) sum += std::exp(double(expected.logits[t * vocab + v]));
    nll -= expected.logits[t * vocab + static_cast<size_t>(expected.ids[t + 1])] - std::log(sum);
  }
  DecoderModel* models[] = {&model};
  const auto windows = CutWindows(
      expected.ids, {Protocol::kWindows, static_cast<int64_t>(expected.ids.size()), 0, {}});
  const auto scores = Evaluate(run_.backend(), run_.exec(), models, nullptr, windows, {});
  EXPECT_NEAR(std::log(scores[0].perplexity.perplexity), nll / double(scored), 1e-4);
  EXPECT_EQ(scores[0].perplexity.tokens, static_cast<int64_t>(scored));
  EXPECT_FALSE(scores[0].divergence.has_value());
}

TEST_F(EvaluateTest, AModelDoesNotDivergeFromItself) {
  const Expected expected = ReadExpected("llama_gqa");
  const ModelSource source = ModelSource::Open(GoldenFolder("llama_gqa"));
  DecoderModel model(run_.backend(), run_.exec(), source, Compute::kF32);
  DecoderModel twin(run_.backend(), run_.exec(), source, Compute::kF32);
  DecoderModel rounded(run_.backend(), run_.exec(), source, Compute::kBF16);
  DecoderModel* models[] = {&model, &twin, &rounded};
  const auto windows = CutWindows(expected.ids, {Protocol::kWindows, 16, 0, {}});
  const auto scores = Evaluate(run_.backend(), run_.exec(), models, &model, windows, {});
  for (const int same : {0, 1}) {
    EXPECT_EQ(scores[static_cast<size_t>(same)].divergence->kl_mean, 0.0);
    EXPECT_EQ(scores[static_cast<size_t>(same)].divergence->top1_agreement, 1.0);
  }
  EXPECT_GT(scores[2].divergence->kl_mean, 1e-7);
  EXPECT_LT(scores[2].divergence->kl_mean, 1e-2);
  EXPECT_EQ(scores[0].perplexity.perplexity, scores[1].perplexity.perplexity);
}

TEST_F(EvaluateTest, TokensOutsideTheEmbeddingAreRefused) {
  const ModelSource a = ModelSource::Open(GoldenFolder("llama_gqa"));
  DecoderModel model(run_.backend(), run_.exec(), a, Compute::kF32);
  std::vector<int32_t> ids = {1, 2, 3, static_cast<int32_t>(a.spec().vocab)};
  DecoderModel* models[] = {&model};
  const auto windows = CutWindows(ids, {Protocol::kWindows, 4, 0, {}});
  EXPECT_THROW(Evaluate(run_.backend(), run_.exec(), models, nullptr, windows, {}), Error)
      << "a token outside the embedding";
}

}  // namespace
}  // namespace quantmill::test
