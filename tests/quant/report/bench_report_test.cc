// The report of speeds, as text and JSON.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "quant/report/json.h"
#include "quant/report/text.h"
#include "sample_reports.h"

namespace quantmill {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(BenchReportTest, Text) {
  EXPECT_EQ(ToText(SampleBenchReport()),
            R"(protocol  prompts of 512 random tokens, one by one; then 64 tokens of all
          sequences together, the likeliest each; computed in bf16; medians of 3
          runs, the models in turns

out/w4
  compressed-tensors, w4a16 g64 symmetric, 113.2 MB, cache f32; 120.0 MB packed,
  which reading alone takes 6.0 ms
  batch    TTFT     TPOT      p99  tok/s  of memory  speedup
  1      0.31 s  12.1 ms  13.9 ms   82.6     49.6 %    2.50x
  8      0.32 s  24.2 ms  26.1 ms  330.6     24.8 %    1.90x

SmolLM2
  dense F16, 269.1 MB, cache f32; 269.0 MB packed
  batch    TTFT     TPOT      p99  tok/s  of memory  speedup
  1      0.37 s  30.3 ms  31.0 ms   33.0          -        -
  8      0.37 s  46.0 ms  47.0 ms  174.0          -        -

TTFT: a prompt alone to its first token; TPOT: a step, one token of each
sequence; p99: of the steps; of memory: what the weights' bytes a step are of
reading alone; speedup: of a step, over SmolLM2.
cpu amx, 2 threads, 61.0 s, peak memory 700.0 MB
)");
  BenchReport alone = SampleBenchReport();
  alone.reference.clear();
  EXPECT_THAT(ToText(alone), Not(HasSubstr("speedup:")));
}

TEST(BenchReportTest, JsonHasNullForWhatIsNotKnown) {
  const auto json = ToJson(SampleBenchReport());
  EXPECT_EQ(json.at("reference"), "SmolLM2");
  const auto& models = json.at("models");
  EXPECT_EQ(models[0].at("rows")[1].at("batch"), 8);
  EXPECT_EQ(models[0].at("rows")[0].at("speedup"), 2.5);
  EXPECT_TRUE(models[1].at("read_bandwidth").is_null());
  EXPECT_TRUE(models[1].at("rows")[0].at("speedup").is_null());
  EXPECT_TRUE(models[1].at("rows")[0].at("bandwidth_share").is_null());
}

}  // namespace
}  // namespace quantmill
