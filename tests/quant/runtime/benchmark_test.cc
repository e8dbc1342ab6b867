#include "quant/runtime/benchmark.h"

#include <gtest/gtest.h>

#include "quant/runtime/generate.h"
#include "tests/quant/runtime/golden_model.h"

namespace quantmill::test {
namespace {

class BenchmarkTest : public testing::Test {
 protected:
  BenchmarkTest()
      : run_(CpuBackend(AvailableIsas().front(), 2)),
        source_(ModelSource::Open(GoldenFolder("llama_gqa"))),
        model_(run_.backend(), run_.exec(), source_, Compute::kF32) {}

  BenchmarkRun Run(const BenchmarkShape& shape) {
    return RunBenchmark(run_.backend(), run_.exec(), model_, shape, [&] { ++forwards_; });
  }

  BackendRun run_;
  ModelSource source_;
  DecoderModel model_;
  int64_t forwards_ = 0;
};

TEST_F(BenchmarkTest, TimesEachPromptAndEachStep) {
  const BenchmarkRun run = Run({3, 5, 4});
  EXPECT_EQ(run.first_token.size(), 3u);
  EXPECT_EQ(run.steps.size(), 3u);
  EXPECT_EQ(forwards_, 6);
  for (const double seconds : run.first_token) EXPECT_GT(seconds, 0);
  for (const double seconds : run.steps) EXPECT_GT(seconds, 0);
}

// What is timed is what would be generated: sequences do not disturb each other.
TEST_F(BenchmarkTest, SequencesSayWhatTheySayAlone) {
  const BenchmarkRun run = Run({3, 7, 6});
  EXPECT_NE(run.prompts[0], run.prompts[1]);
  GenerationOptions options;
  options.max_tokens = 6;
  for (size_t i = 0; i < 3; ++i) {
    const GenerationResult alone = Generate(run_.backend(), run_.exec(), model_, run.prompts[i],
                                            options, [](int32_t) { return true; });
    EXPECT_EQ(run.ids[i], alone.ids) << i;
  }
}

TEST_F(BenchmarkTest, PromptsAreThoseOfEveryRun) {
  EXPECT_EQ(Run({2, 5, 2}).prompts, Run({2, 5, 3}).prompts);
}

}  // namespace
}  // namespace quantmill::test
