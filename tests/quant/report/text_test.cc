// Golden texts: what a person reads, to the character.
#include "quant/report/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <sstream>
#include <string>

#include "quant/report/layout.h"
#include "sample_reports.h"

namespace quantmill {
namespace {

using testing::HasSubstr;
using testing::Not;

void ExpectReadable(const std::string& text) {
  EXPECT_TRUE(text.ends_with('\n'));
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(DisplayWidth(line), kTextColumns) << line;
    EXPECT_FALSE(line.ends_with(' ')) << line;
  }
}

TEST(TextTest, Quantize) {
  const std::string text = ToText(SampleQuantizeReport());
  ExpectReadable(text);
  EXPECT_EQ(text, R"(quantized out/sample-w4
  method      gptq, w4a16 g64 symmetric
  format      compressed-tensors
  weights     269.1 MB -> 113.2 MB, 2.38 times smaller
  run on      cpu avx512_bf16, 2 threads
  calibration 65,536 tokens, forward in bf16
  time        31.2 s: load 1.20, forward 12.31, statistics 8.10, solve 7.02,
              write 1.00, verify 1.60
  memory      peak 232.5 MB, planned 285.9 MB

largest errors of 7 layers, median 0.004
  layer                         relative error  of weights
  model.layers.2.mlp.down_proj             nan       0.006
  model.layers.6.mlp.down_proj           0.007       0.014
  model.layers.5.mlp.down_proj           0.006       0.012
  model.layers.4.mlp.down_proj           0.005        0.01
  model.layers.3.mlp.down_proj           0.004       0.008

2 events, 1 fallback
  - --calib: no calibration text was given
  ! model.layers.2.mlp.down_proj: the factorization failed at column 17 with
    every damping tried; its codes are rounded to nearest
)");
}

TEST(TextTest, QuantizeSaysWhatABudgetCameTo) {
  QuantizeReport report = SampleQuantizeReport();
  report.budget = BudgetOutcome{"kl<=0.05", 0.05, 0.04861, 4.3125};
  EXPECT_NE(ToText(report).find("  budget      kl<=0.05: 0.04861 measured, 4.312 bits a weight\n"),
            std::string::npos);
  report.budget = BudgetOutcome{"4.5bits", 4.5, std::nullopt, 4.4921875};
  EXPECT_NE(ToText(report).find("  budget      4.5bits: 4.492 bits a weight\n"), std::string::npos);
}

TEST(TextTest, EvalBeginsWithItsProtocol) {
  const std::string text = ToText(SampleEvalReport());
  ExpectReadable(text);
  EXPECT_EQ(text, R"(protocol  windows: 12 windows of 2,048 tokens, cut without overlap, every
          prediction scored; no BOS; computed in f32; evaluation.txt (304,978
          tokens, SHA-256 aaaaaaaaaaaa)

model                            perplexity      KL    p99   top-1  flips  tok/s
SmolLM2                      20.113 ± 0.420       -      -       -      -  1,234
  reference: dense F16, 269.1 MB
out/a-folder...ollm2-w4-g64  22.500 ± 0.500  0.1235  0.950  81.2 %  5.1 %  1,234
  compressed-tensors, w4a16 g64 symmetric, 113.2 MB
  KL ± 0.0021, largest 3.2; loss +0.1120 ± 0.003

24,564 tokens scored per model. ±: 95 % interval over windows.
KL(reference || model) in nats a token, and its 99th percentile; top-1: share of
tokens with the same arg max; flips: right in one and wrong in the other; loss:
mean difference, nats a token, paired.
cpu avx512_bf16, 2 threads, 75.0 s, peak memory 1.23 GB
)");
}

TEST(TextTest, EvalWithoutReferenceAndWithOneWindow) {
  EvalReport report = SampleEvalReport();
  report.reference.clear();
  report.reference_scores.reset();
  report.models[0].divergence.reset();
  report.models[0].perplexity_ci95 = {22.5, 22.5};
  report.models[0].tokens_per_second = std::numeric_limits<double>::quiet_NaN();
  report.protocol.name = "llamacpp";
  report.protocol.bos = true;
  report.protocol.windows = 1;
  const std::string text = ToText(report);
  ExpectReadable(text);
  EXPECT_THAT(text, HasSubstr("half of each scored"));
  EXPECT_THAT(text, HasSubstr("1 window of 2,048 tokens"));
  EXPECT_THAT(text, HasSubstr("with BOS"));
  EXPECT_THAT(text, HasSubstr("One window: no interval"));
  EXPECT_THAT(text, HasSubstr("22.500    nan\n"));
  EXPECT_THAT(text, Not(HasSubstr("KL")));
}

TEST(TextTest, TinyDivergenceKeepsItsDigits) {
  EvalReport report = SampleEvalReport();
  report.models[0].divergence->kl_mean = 5.4e-5;
  EXPECT_THAT(ToText(report), HasSubstr("5.4e-05"));
}

TEST(TextTest, VerifyPassed) {
  VerifyReport report;
  report.artifact = "out";
  report.format = "compressed-tensors";
  report.bytes_checked = 2'720'000;
  report.tensors = 94;
  report.seconds = 0.034;
  report.layers.push_back({"model.layers.0.mlp.up_proj", "w4a16 g64 symmetric", {}, {}});
  EXPECT_EQ(ToText(report), R"(passed out
  format      compressed-tensors
  checked     2.72 MB in 94 tensors, 1 layer quantized, 34.0 ms
  reference   none: errors of the weights are not known (--reference MODEL)
)");
  report.reference = "sample_model";
  report.layers[0].weight_error = 0.0123;
  const std::string text = ToText(report);
  ExpectReadable(text);
  EXPECT_THAT(text, HasSubstr("median 0.0123, largest 0.0123"));
}

TEST(TextTest, VerifyFailedListsProblemsUpToALimit) {
  VerifyReport report;
  report.artifact = "out";
  report.format = "compressed-tensors";
  for (int i = 0; i < 23; ++i) {
    report.problems.push_back({"file: tensor '\x1b[31m" + std::to_string(i) + "'", "is constant"});
  }
  const std::string text = ToText(report);
  ExpectReadable(text);
  EXPECT_TRUE(text.starts_with("FAILED out: 23 problems\n")) << text;
  EXPECT_THAT(text, HasSubstr("  - file: tensor '\\x1b[31m0': is constant\n"));
  EXPECT_THAT(text, HasSubstr("and 3 more"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST(TextTest, ColorIsForTerminalsOnly) {
  const VerifyReport report;
  EXPECT_THAT(ToText(report), Not(HasSubstr("\x1b")));
  EXPECT_TRUE(ToText(report, {.color = true}).starts_with("\x1b[1;32mpassed\x1b[0m"));
}

TEST(TextTest, Inspect) {
  InspectReport r;
  r.path = "calib_data/sample_model";
  r.architecture = "LlamaForCausalLM";
  r.format = "dense F16";
  r.layers = 4;
  r.hidden = 256;
  r.ffn = 768;
  r.heads = 8;
  r.kv_heads = 1;
  r.head_dim = 32;
  r.vocab = 2048;
  r.max_positions = 1024;
  r.tied = true;
  r.parameters = 3'672'320;
  r.bytes = 7'350'000;
  r.files = {"model.safetensors"};
  r.groups = {{"attention", "F16", 16, 1'572'864, 786'432}};
  r.unknown_tensors = {"model.extra"};
  const std::string text = ToText(r);
  ExpectReadable(text);
  EXPECT_EQ(text, R"(calib_data/sample_model
  model       LlamaForCausalLM, 4 layers, hidden 256, ffn 768
  attention   8 heads of 32, 1 key-value head
  vocabulary  2,048 tokens, embedding and head are one tensor; up to 1,024
              positions
  format      dense F16
  size        3.7 M parameters, 7.35 MB in 1 file

  tensors    type  count  parameters     size
  attention   F16     16     786,432  1.57 MB

unknown tensors, carried through untouched
  - model.extra
)");
}

TEST(TextTest, Plan) {
  PlanReport plan;
  plan.model = "m";
  plan.method = "gptq";
  plan.format = "f";
  plan.layers = {{"model.layers.{0-2,5}.mlp.up_proj", "w4a16:g64", 4, 1000, 531}};
  plan.average_bits = 4.25;
  plan.budget = "4.5bits";
  plan.predicted_kl = 0.0123;
  plan.seconds = PhaseSeconds{.total = 12, .forward = 10, .solve = 2};
  const std::string text = ToText(plan);
  EXPECT_NE(text.find("  time        about 12.0 s: forward 10.00, solve 2.00\n"), std::string::npos)
      << text;
  EXPECT_NE(text.find("  budget      4.5bits: predicted KL 0.0123\n"), std::string::npos) << text;
  ExpectReadable(text);
  plan.seconds.reset();
  plan.predicted_kl.reset();
  EXPECT_EQ(ToText(plan).find("about 12"), std::string::npos);
  EXPECT_EQ(ToText(plan).find("budget"), std::string::npos);
}

// Names lose what all have in common, and alternatives their common end: there are 26 columns.
TEST(TextTest, SensitivityKeepsWhatTellsLayersApart) {
  PlanReport plan;
  plan.sensitivity =
      SensitivityTable{{"w2a16:g64", "w4a16:g64"},
                       {{"model.layers.0.self_attn.(q_proj|k_proj|v_proj)", 10, {0.5, 0.01}},
                        {"model.layers.12.mlp.(gate_proj|up_proj)", 10, {0.5, 0.01}},
                        {"model.layers.12.mlp.down_proj", 10, {0.5, 0.01}}}};
  const std::string text = ToText(plan);
  for (const char* name :
       {"\n0.self_attn.q|k|v_proj ", "\n12.mlp.gate|up_proj ", "\n12.mlp.down_proj "}) {
    EXPECT_NE(text.find(name), std::string::npos) << name << text;
  }
}

TEST(TextTest, MemoryPlan) {
  EXPECT_EQ(ToText(MemoryPlan{{{"process", 67'100'000}, {"activations", 201'300'000}},
                              268'400'000,
                              {"mlp inputs are recomputed"},
                              {},
                              0}),
            "planned memory\n"
            "process          67.1 MB\n"
            "activations     201.3 MB\n"
            "total           268.4 MB\n"
            "note: mlp inputs are recomputed\n");
}

TEST(TextTest, MemoryPlanOfAGpu) {
  MemoryPlan plan{{{"process", 67'100'000}}, 67'100'000, {"activations lie in host memory"}, {}, 0};
  plan.gpu_items = {{"driver and libraries", 671'000'000}};
  plan.gpu_bytes = 671'000'000;
  EXPECT_EQ(ToText(plan),
            "planned memory\n"
            "process         67.1 MB\n"
            "total           67.1 MB\n"
            "\n"
            "planned GPU memory\n"
            "driver and libraries  671.0 MB\n"
            "total                 671.0 MB\n"
            "note: activations lie in host memory\n");
}

TEST(TextTest, EmptyReportsAreReadable) {
  ExpectReadable(ToText(QuantizeReport{}));
  ExpectReadable(ToText(EvalReport{}));
  ExpectReadable(ToText(InspectReport{}));
  ExpectReadable(ToText(MemoryPlan{}));
  ExpectReadable(ToText(VerifyReport{}));
}

}  // namespace
}  // namespace quantmill
