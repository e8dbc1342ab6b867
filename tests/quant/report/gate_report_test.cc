// The gate's report in each of its forms.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "quant/report/json.h"
#include "quant/report/markup.h"
#include "quant/report/text.h"
#include "sample_reports.h"

namespace quantmill {
namespace {

using testing::HasSubstr;
using testing::Not;

GateReport Damaged() {
  GateReport r = SampleGateReport();
  r.verified.problems = {{"model.safetensors: x (offset 8)", "is <missing>"}};
  r.evaluated.reset();
  return r;
}

GateReport Kept() {
  GateReport r = SampleGateReport();
  r.checks.erase(r.checks.begin());
  return r;
}

TEST(GateReportTest, PassesIfTheFileIsSoundAndEveryLimitKept) {
  EXPECT_FALSE(SampleGateReport().passed());
  EXPECT_TRUE(Kept().passed());
  GateReport damaged = Kept();
  damaged.verified.problems = {{"f", "wrong"}};
  EXPECT_FALSE(damaged.passed());
}

TEST(GateReportTest, Text) {
  EXPECT_EQ(ToText(SampleGateReport()), R"(FAILED out/<w4> & "co": 1 of 5 limits broken
  reference   SmolLM2
  limits      limits.yaml
  file        sound: 692 tensors, 113.2 MB checked, compressed-tensors
  text        12 windows of 2,048 tokens of evaluation.txt (windows, SHA-256
              aaaaaaaaaaaa), computed in f32

  limit                    allowed         measured  verdict
  kl                        <= 0.1  0.1235 ± 0.0021   FAILED
  perplexity_increase      <= 12 %    11.8 % ± 0.34   passed
    the limit lies inside the 95 % interval: more text would decide
  top1_agreement           >= 80 %           81.2 %   passed
  weight_bytes         <= 120.0 MB         113.2 MB   passed
  max_fallbacks               <= 0                -   passed
    no quantmill.json of the artifact tells
)");
  EXPECT_THAT(ToText(Kept()), HasSubstr("4 limits kept"));
  EXPECT_THAT(ToText(Damaged()),
              AllOf(HasSubstr("1 problem of the file, 1 of 5 limits broken"),
                    HasSubstr("- model.safetensors: x (offset 8): is <missing>")));
}

TEST(GateReportTest, Json) {
  const auto json = ToJson(SampleGateReport());
  EXPECT_EQ(json.at("passed"), false);
  EXPECT_EQ(json.at("checks").size(), 5u);
  EXPECT_EQ(json.at("checks")[0].at("key"), "kl");
  EXPECT_EQ(json.at("checks")[0].at("bound"), "<=");
  EXPECT_EQ(json.at("checks")[2].at("bound"), ">=");
  EXPECT_EQ(json.at("checks")[2].at("unit"), "share");
  EXPECT_TRUE(json.at("checks")[4].at("measured").is_null());
  EXPECT_EQ(json.at("verified").at("passed"), true);
  EXPECT_EQ(json.at("evaluated").at("models").size(), 1u);
  EXPECT_TRUE(ToJson(Damaged()).at("evaluated").is_null());
}

TEST(GateReportTest, JUnit) {
  EXPECT_EQ(JUnitXml(SampleGateReport()),
            R"(<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="quantmill gate" tests="6" failures="1" errors="0" time="76.500">
  <testsuite name="quantmill gate" tests="6" failures="1" errors="0" time="76.500" skipped="0">
    <testcase classname="quantmill.gate.out/&lt;w4&gt; &amp; &quot;co&quot;" name="file" time="0.400"/>
    <testcase classname="quantmill.gate.out/&lt;w4&gt; &amp; &quot;co&quot;" name="kl" time="0.000">
      <failure message="0.1235 ± 0.0021 measured, &lt;= 0.1 allowed">0.1235 ± 0.0021 measured, &lt;= 0.1 allowed</failure>
    </testcase>
    <testcase classname="quantmill.gate.out/&lt;w4&gt; &amp; &quot;co&quot;" name="perplexity_increase" time="0.000">
      <system-out>11.8 % ± 0.34 measured, &lt;= 12 % allowed: the limit lies inside the 95 % interval: more text would decide</system-out>
    </testcase>
    <testcase classname="quantmill.gate.out/&lt;w4&gt; &amp; &quot;co&quot;" name="top1_agreement" time="0.000">
      <system-out>81.2 % measured, &gt;= 80 % allowed</system-out>
    </testcase>
    <testcase classname="quantmill.gate.out/&lt;w4&gt; &amp; &quot;co&quot;" name="weight_bytes" time="0.000">
      <system-out>113.2 MB measured, &lt;= 120.0 MB allowed</system-out>
    </testcase>
    <testcase classname="quantmill.gate.out/&lt;w4&gt; &amp; &quot;co&quot;" name="max_fallbacks" time="0.000">
      <system-out>- measured, &lt;= 0 allowed: no quantmill.json of the artifact tells</system-out>
    </testcase>
  </testsuite>
</testsuites>
)");
  EXPECT_THAT(JUnitXml(Damaged()),
              AllOf(HasSubstr("failures=\"2\""), HasSubstr("is &lt;missing&gt;")));
}

TEST(GateReportTest, Html) {
  const std::string page = HtmlPage(SampleGateReport());
  EXPECT_TRUE(page.starts_with("<!DOCTYPE html>"));
  EXPECT_THAT(page, AllOf(HasSubstr("out/&lt;w4&gt; &amp; &quot;co&quot;"), Not(HasSubstr("<w4>")),
                          HasSubstr("<td class=\"bad\">failed</td>"),
                          HasSubstr("model.layers.0.mlp.down_proj: 0.008")));
  // 0.1185 +- 0.0034 of 0.12, whose mark is at 100: from 95.9, 5.7 wide.
  EXPECT_THAT(page, HasSubstr("x=\"95.9\" y=\"7\" width=\"5.7\""));
  for (const char* outside : {"http:", "https:", "<script", "url("}) {
    EXPECT_THAT(page, Not(HasSubstr(outside)));  // it loads nothing
  }
  EXPECT_THAT(HtmlPage(Damaged()), HasSubstr("Problems of the file"));
}

TEST(GateReportTest, MarkupIsEscaped) {
  EXPECT_EQ(EscapeMarkup("a<b>&\"c\"'d'"), "a&lt;b&gt;&amp;&quot;c&quot;&#39;d&#39;");
  EXPECT_EQ(EscapeMarkup("\x1b[31m\x01"), "\\x1b[31m\\x01");  // nothing that XML forbids
}

}  // namespace
}  // namespace quantmill
