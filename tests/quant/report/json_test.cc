#include "quant/report/json.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "sample_reports.h"

namespace quantmill {
namespace {

using Json = nlohmann::ordered_json;

template <typename Report>
Json Reparsed(const Report& report) {
  return Json::parse(JsonText(ToJson(report)));
}

TEST(JsonTest, QuantizeHasTheKeysThatScriptsRelyOn) {
  const Json json = Reparsed(SampleQuantizeReport());
  EXPECT_EQ(json["output"], "out/sample-w4");
  EXPECT_EQ(json["peak_rss_bytes"], 232'500'000);
  EXPECT_EQ(json["fallbacks"], 1);
  for (const char* phase :
       {"total", "load", "fold", "forward", "statistics", "solve", "write", "verify"}) {
    EXPECT_TRUE(json["seconds"][phase].is_number()) << phase;
  }
  ASSERT_EQ(json["layers"].size(), 7u);
  EXPECT_EQ(json["layers"][0]["name"], "model.layers.0.mlp.down_proj");
  EXPECT_EQ(json["layers"][0]["scheme"], "w4a16 g64 symmetric");
  EXPECT_EQ(json["layers"][0]["relative_error"], 0.001);
  EXPECT_TRUE(json["layers"][2]["relative_error"].is_null());  // NaN
  EXPECT_EQ(json["events"][1]["kind"], "round_to_nearest_fallback");
  EXPECT_EQ(json["events"][1]["is_fallback"], true);
}

TEST(JsonTest, QuantizeTellsWhatABudgetCameTo) {
  QuantizeReport report = SampleQuantizeReport();
  EXPECT_TRUE(Reparsed(report)["budget"].is_null());
  report.budget = BudgetOutcome{"perplexity<=+1%", 0.01, 0.0085, 4.375};
  const Json measured = Reparsed(report)["budget"];
  EXPECT_EQ(measured["asked"], "perplexity<=+1%");
  EXPECT_EQ(measured["limit"], 0.01);
  EXPECT_EQ(measured["measured"], 0.0085);
  EXPECT_EQ(measured["average_bits"], 4.375);
  report.budget = BudgetOutcome{"4.5bits", 4.5, std::nullopt, 4.4921875};
  const Json counted = Reparsed(report)["budget"];
  EXPECT_EQ(counted["limit"], 4.5);
  EXPECT_TRUE(counted["measured"].is_null());
}

TEST(JsonTest, EvalHasDivergenceOrNull) {
  const Json json = Reparsed(SampleEvalReport());
  EXPECT_EQ(json["protocol"]["name"], "windows");
  EXPECT_EQ(json["protocol"]["kv_cache"], "f32");
  EXPECT_EQ(json["protocol"]["tokens_sha256"], std::string(64, 'a'));
  EXPECT_EQ(json["reference"], "SmolLM2");
  const Json& model = json["models"][0];
  EXPECT_EQ(model["perplexity"], 22.5);
  EXPECT_EQ(model["perplexity_ci95"], Json::array({22.0, 23.0}));
  EXPECT_EQ(model["tokens"], 24564);
  EXPECT_EQ(model["kl_mean"], 0.12345);
  EXPECT_EQ(model["kl_p99"], 0.95);
  EXPECT_EQ(model["top1_agreement"], 0.812);
  EXPECT_EQ(model["flips"], 0.051);
  const Json& reference = json["reference_scores"];
  EXPECT_EQ(reference["perplexity"], 20.113);
  ASSERT_TRUE(reference.contains("kl_mean"));
  EXPECT_TRUE(reference["kl_mean"].is_null());
}

TEST(JsonTest, EmptyReportsAreValid) {
  EXPECT_EQ(Reparsed(QuantizeReport{})["layers"], Json::array());
  EXPECT_EQ(Reparsed(MemoryPlan{})["items"], Json::array());
  EXPECT_TRUE(Reparsed(MemoryPlan{})["gpu"].is_null());
  MemoryPlan plan;
  plan.gpu_items = {{"driver and libraries", 5}};
  plan.gpu_bytes = 5;
  EXPECT_EQ(Reparsed(plan)["gpu"]["total_bytes"], 5);
  EXPECT_EQ(Reparsed(plan)["gpu"]["items"][0]["bytes"], 5);
  const Json eval = Reparsed(EvalReport{});
  EXPECT_TRUE(eval["reference"].is_null());
  EXPECT_TRUE(eval["reference_scores"].is_null());
  EXPECT_EQ(Reparsed(VerifyReport{})["passed"], true);
  EXPECT_TRUE(Reparsed(InspectReport{})["bits_per_weight"].is_null());
}

TEST(JsonTest, AnyValueGivesValidJson) {
  EvalReport report = SampleEvalReport();
  report.models[0].perplexity = std::numeric_limits<double>::infinity();
  report.models[0].divergence->kl_mean = std::numeric_limits<double>::quiet_NaN();
  report.models[0].path = "bad\xff\"\n\x1b";
  const Json json = Reparsed(report);
  EXPECT_TRUE(json["models"][0]["perplexity"].is_null());
  EXPECT_TRUE(json["models"][0]["kl_mean"].is_null());
  EXPECT_EQ(json["models"][0]["path"], "bad\xef\xbf\xbd\"\n\x1b");
}

TEST(JsonTest, VerifyListsProblemsAndAbsentErrorsAreNull) {
  VerifyReport report;
  report.artifact = "a";
  report.layers.push_back({"l", "w4a16 g64 symmetric", 0.01, std::nullopt});
  report.problems.push_back({"model.safetensors: tensor 'x'", "a scale is not finite"});
  const Json json = Reparsed(report);
  EXPECT_EQ(json["passed"], false);
  EXPECT_EQ(json["problems"][0]["what"], "a scale is not finite");
  EXPECT_EQ(json["layers"][0]["weight_error"], 0.01);
  EXPECT_TRUE(json["layers"][0]["recorded_error"].is_null());
}

}  // namespace
}  // namespace quantmill
