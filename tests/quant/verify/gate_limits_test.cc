// Limits files and their verdicts, by hand.
#include "quant/verify/gate_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

using testing::HasSubstr;

std::string ErrorOf(const std::string& yaml) {
  try {
    ParseGateLimits(yaml, "limits.yaml");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    return error.what();
  }
  return "";
}

EvalReport Evaluated(int64_t windows = 12) {
  EvalReport report;
  report.protocol.windows = windows;
  EvaluatedModel model;
  model.perplexity = 22;
  model.perplexity_ci95 = {21.5, 22.6};
  EvaluatedModel::Divergence divergence;
  divergence.kl_mean = 0.10;
  divergence.kl_ci95 = 0.01;
  divergence.kl_p99 = 0.9;
  divergence.kl_max = 4;
  divergence.top1_agreement = 0.85;
  divergence.flips = 0.04;
  divergence.delta_nll = std::log(1.02);
  divergence.delta_nll_ci95 = std::log(1.03) - std::log(1.02);
  model.divergence = divergence;
  report.models = {model};
  return report;
}

GateCheck CheckOne(const std::string& yaml, const EvalReport& evaluated) {
  GateFacts facts;
  facts.evaluated = &evaluated;
  facts.weight_bytes = 1000;
  facts.fallbacks = 2;
  return CheckLimits(ParseGateLimits(yaml, "limits.yaml"), facts).front();
}

TEST(GateLimits, EveryKeyIsRead) {
  const GateLimits limits = ParseGateLimits(
      "kl: 0.05\nkl_p99: 1\nkl_max: 9\nperplexity: 23\nperplexity_increase: 1.5 %\n"
      "top1_agreement: 85%\nflips: 0.05\nweight_bytes: 120MB\nmax_fallbacks: 1\nstrict: true\n"
      "batch: 4\nprompt_tokens: 100\ndecode_tokens: 20\n"
      "protocol: llamacpp\nwindow: 512\nmax_windows: 60\ncompute: bf16\ntokens_sha256: " +
          std::string(64, 'a') + "\n",
      "limits.yaml");
  const std::vector<std::pair<const char*, double>> want = {{"kl", 0.05},
                                                            {"kl_p99", 1},
                                                            {"kl_max", 9},
                                                            {"perplexity", 23},
                                                            {"perplexity_increase", 0.015},
                                                            {"top1_agreement", 0.85},
                                                            {"flips", 0.05},
                                                            {"weight_bytes", 120e6}};
  ASSERT_EQ(limits.limits.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_EQ(limits.limits[i].key, want[i].first);
    EXPECT_DOUBLE_EQ(limits.limits[i].value, want[i].second) << want[i].first;
  }
  EXPECT_EQ(limits.max_fallbacks, 1);
  EXPECT_TRUE(limits.strict);
  EXPECT_EQ(limits.protocol, "llamacpp");
  EXPECT_EQ(limits.window, 512);
  EXPECT_EQ(limits.max_windows, 60);
  EXPECT_EQ(limits.compute, "bf16");
  EXPECT_EQ(limits.tokens_sha256, std::string(64, 'a'));
  EXPECT_EQ(limits.batch, 4);
  EXPECT_EQ(limits.prompt_tokens, 100);
  EXPECT_EQ(limits.decode_tokens, 20);
  EXPECT_FALSE(limits.need_speeds());
  EXPECT_TRUE(limits.need_evaluation());
  EXPECT_FALSE(ParseGateLimits("weight_bytes: 1GB", "f").need_evaluation());
}

TEST(GateLimits, ErrorsNameLineAndKey) {
  EXPECT_THAT(ErrorOf("kl: 0.05\nperplexty: 3\n"),
              AllOf(HasSubstr("limits.yaml:2"), HasSubstr("did you mean 'perplexity'?")));
  EXPECT_THAT(ErrorOf("kl: small"), AllOf(HasSubstr("limits.yaml:1: kl"), HasSubstr("'small'")));
  EXPECT_THAT(ErrorOf("kl: -1"), HasSubstr("0 or more"));
  EXPECT_THAT(ErrorOf("kl: nan"), HasSubstr("0 or more"));
  EXPECT_THAT(ErrorOf("kl: inf"), HasSubstr("0 or more"));
  EXPECT_THAT(ErrorOf("flips: 5 percent"), HasSubstr("share"));
  EXPECT_THAT(ErrorOf("top1_agreement: 85"), HasSubstr("at most 100%"));
  EXPECT_THAT(ErrorOf("weight_bytes: huge"), HasSubstr("is not a size"));
  EXPECT_THAT(ErrorOf("kl: 1\nkl: 2"), HasSubstr("twice"));
  EXPECT_THAT(ErrorOf("kl: 1\nprotocol: other"), HasSubstr("windows, llamacpp"));
  EXPECT_THAT(ErrorOf("kl: 1\nwindow: 1"), HasSubstr("2 or more"));
  EXPECT_THAT(ErrorOf("kl: 1\ntokens_sha256: abc"), HasSubstr("64 hexadecimal digits"));
  EXPECT_THAT(ErrorOf("window: 512"), HasSubstr("no limit"));
  EXPECT_THAT(ErrorOf(""), HasSubstr("holds nothing"));
  EXPECT_THAT(ErrorOf("- kl"), HasSubstr("a file of limits"));
}

TEST(CheckLimits, ALimitIsKeptAtItsValue) {
  const EvalReport evaluated = Evaluated();
  for (const char* kept :
       {"kl: 0.10", "kl_p99: 0.9", "kl_max: 4", "perplexity: 22", "perplexity_increase: 2.0001%",
        "top1_agreement: 85%", "flips: 4%", "weight_bytes: 1000"}) {
    EXPECT_TRUE(CheckOne(kept, evaluated).passed) << kept;
  }
  for (const char* broken : {"kl: 0.0999", "kl_p99: 0.89", "kl_max: 3.9", "perplexity: 21.9",
                             "perplexity_increase: 1.99%", "top1_agreement: 85.1%", "flips: 3.9%",
                             "weight_bytes: 999"}) {
    EXPECT_FALSE(CheckOne(broken, evaluated).passed) << broken;
  }
}

TEST(CheckLimits, StrictLimitsKeepTheWholeInterval) {
  const EvalReport evaluated = Evaluated();
  EXPECT_TRUE(CheckOne("kl: 0.105", evaluated).passed);
  EXPECT_THAT(CheckOne("kl: 0.105", evaluated).note, HasSubstr("inside the 95 % interval"));
  EXPECT_FALSE(CheckOne("kl: 0.105\nstrict: true", evaluated).passed);
  EXPECT_TRUE(CheckOne("kl: 0.1101\nstrict: true", evaluated).passed);
  EXPECT_EQ(CheckOne("kl: 0.1101", evaluated).note, "");
  EXPECT_NEAR(*CheckOne("perplexity_increase: 1%", evaluated).half_width, 0.01, 1e-12);
  EXPECT_FALSE(CheckOne("perplexity_increase: 2.5%\nstrict: true", evaluated).passed);
  EXPECT_TRUE(CheckOne("flips: 4%\nstrict: true", evaluated).passed);  // has no interval
}

TEST(CheckLimits, OneWindowHasNoInterval) {
  const EvalReport evaluated = Evaluated(1);
  const GateCheck check = CheckOne("kl: 0.2", evaluated);
  EXPECT_TRUE(check.passed);
  EXPECT_FALSE(check.half_width.has_value());
  const GateCheck strict = CheckOne("kl: 0.2\nstrict: true", evaluated);
  EXPECT_FALSE(strict.passed);
  EXPECT_THAT(strict.note, HasSubstr("one window"));
}

TEST(CheckLimits, WhatIsNoNumberBreaksEveryLimit) {
  EvalReport evaluated = Evaluated();
  evaluated.models[0].divergence->kl_mean = std::numeric_limits<double>::quiet_NaN();
  evaluated.models[0].divergence->top1_agreement = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(CheckOne("kl: 1000", evaluated).passed);
  EXPECT_THAT(CheckOne("kl: 1000", evaluated).note, HasSubstr("no number"));
  EXPECT_FALSE(CheckOne("top1_agreement: 0", evaluated).passed);
}

TEST(CheckLimits, WhatWasNotEvaluatedIsBroken) {
  GateFacts facts;
  facts.why_not_run = "the file is damaged";
  const GateCheck check = CheckLimits(ParseGateLimits("kl: 1", "f"), facts).front();
  EXPECT_FALSE(check.passed);
  EXPECT_FALSE(check.measured.has_value());
  EXPECT_EQ(check.note, "the file is damaged");
}

TEST(CheckLimits, SpeedupIsThatOfAStep) {
  BenchReport benched;
  benched.models.resize(2);
  benched.models[0].rows.resize(1);
  benched.models[0].rows[0].speedup = 1.5;
  GateFacts facts;
  facts.benched = &benched;
  const auto passes = [&](const char* yaml) {
    const GateLimits limits = ParseGateLimits(yaml, "f");
    EXPECT_TRUE(limits.need_speeds());
    return CheckLimits(limits, facts).front().passed;
  };
  EXPECT_TRUE(passes("speedup: 1.5\nbatch: 4"));
  EXPECT_FALSE(passes("speedup: 1.51"));
  facts.benched = nullptr;
  EXPECT_FALSE(passes("speedup: 0"));
}

TEST(CheckLimits, FallbacksAreAlwaysChecked) {
  const auto fallbacks = [](const std::string& yaml, std::optional<int64_t> count) {
    GateFacts facts;
    facts.fallbacks = count;
    return CheckLimits(ParseGateLimits(yaml, "f"), facts).back();
  };
  EXPECT_EQ(fallbacks("weight_bytes: 1", 0).key, "max_fallbacks");
  EXPECT_TRUE(fallbacks("weight_bytes: 1", 0).passed);
  EXPECT_FALSE(fallbacks("weight_bytes: 1", 1).passed);
  EXPECT_TRUE(fallbacks("max_fallbacks: 1", 1).passed);
  EXPECT_FALSE(fallbacks("max_fallbacks: 1", 2).passed);
  // Nothing tells: said, and an error where the file asks for it.
  EXPECT_TRUE(fallbacks("weight_bytes: 1", {}).passed);
  EXPECT_THAT(fallbacks("weight_bytes: 1", {}).note, HasSubstr("quantmill.json"));
  EXPECT_FALSE(fallbacks("max_fallbacks: 1", {}).passed);
}

}  // namespace
}  // namespace quantmill
