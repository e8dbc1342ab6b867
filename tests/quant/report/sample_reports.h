// Reports made by hand, shared by the tests of both renderings.
#ifndef QUANTMILL_TESTS_QUANT_REPORT_SAMPLE_REPORTS_H_
#define QUANTMILL_TESTS_QUANT_REPORT_SAMPLE_REPORTS_H_

#include <limits>
#include <string>

#include "quant/report/results.h"

namespace quantmill {

inline QuantizeReport SampleQuantizeReport() {
  QuantizeReport r;
  r.output = "out/sample-w4";
  r.method = "gptq";
  r.format = "compressed-tensors";
  r.compute = "bf16";
  r.backend = "cpu avx512_bf16, 2 threads";
  r.calibration_tokens = 65536;
  r.planned_bytes = 285'900'000;
  r.peak_rss_bytes = 232'500'000;
  r.input_bytes = 269'100'000;
  r.output_bytes = 113'200'000;
  r.seconds = {31.24, 1.2, 12.31, 8.1, 7.02, 1, 1.6};
  for (int i = 0; i < 7; ++i) {
    const std::string name = "model.layers." + std::to_string(i) + ".mlp.down_proj";
    LayerResult layer;
    layer.name = name;
    layer.scheme = "w4a16 g64 symmetric";
    layer.relative_error = 0.001 * (i + 1);
    layer.rounded_error = 0.004 * (i + 1);
    layer.weight_error = 0.002 * (i + 1);
    r.layers.push_back(layer);
  }
  r.layers[2].relative_error = std::numeric_limits<double>::quiet_NaN();
  r.events.push_back({"bundled_calibration", "--calib", "no calibration text was given", false});
  r.events.push_back({"round_to_nearest_fallback", "model.layers.2.mlp.down_proj",
                      "the factorization failed at column 17 with every damping tried; its codes "
                      "are rounded to nearest",
                      true});
  return r;
}

inline EvalReport SampleEvalReport() {
  EvalReport r;
  r.protocol = {"windows", 2048, 12, false, "evaluation.txt", std::string(64, 'a'), 304978, "f32"};
  r.backend = "cpu avx512_bf16, 2 threads";
  r.reference = "SmolLM2";
  r.seconds = 75;
  r.peak_rss_bytes = 1'230'000'000;
  EvaluatedModel reference;
  reference.path = "SmolLM2";
  reference.weights = "dense F16";
  reference.perplexity = 20.113;
  reference.perplexity_ci95 = {19.7, 20.54};
  reference.tokens = 24564;
  reference.tokens_per_second = 1234.4;
  reference.file_bytes = 269'100'000;
  EvaluatedModel model = reference;
  model.path = "out/a-folder-with-a-rather-long-name/smollm2-w4-g64";
  model.weights = "compressed-tensors, w4a16 g64 symmetric";
  model.perplexity = 22.5;
  model.perplexity_ci95 = {22, 23};
  model.file_bytes = 113'200'000;
  model.divergence =
      EvaluatedModel::Divergence{0.12345, 0.0021, 0.95, 3.2, 0.812, 0.051, 0.112, 0.003};
  r.reference_scores = reference;
  r.models = {model};
  return r;
}

inline BenchReport SampleBenchReport() {
  BenchReport r;
  r.prompt_tokens = 512;
  r.decode_tokens = 64;
  r.runs = 3;
  r.compute = "bf16";
  r.backend = "cpu amx, 2 threads";
  r.reference = "SmolLM2";
  r.seconds = 61;
  r.peak_rss_bytes = 700'000'000;
  BenchedModel w4{
      "out/w4", "compressed-tensors, w4a16 g64 symmetric", "f32", 113'200'000, 120'000'000, 20e9,
      {}};
  w4.rows = {{1, 0.31, 0.0121, 0.0139, 82.6, 0.4959, 1.2, 2.5},
             {8, 0.32, 0.0242, 0.0261, 330.6, 0.2479, 1.2, 1.9}};
  BenchedModel dense{"SmolLM2", "dense F16", "f32", 269'100'000, 269'000'000, {}, {}};
  dense.rows = {{1, 0.37, 0.0303, 0.031, 33, {}, {}, {}}, {8, 0.37, 0.046, 0.047, 174, {}, {}, {}}};
  r.models = {w4, dense};
  return r;
}

// One limit broken, one kept within its interval, one not measured; names that markup must escape.
inline GateReport SampleGateReport() {
  using Unit = GateCheck::Unit;
  GateReport r;
  r.artifact = "out/<w4> & \"co\"";
  r.reference = "SmolLM2";
  r.limits = "limits.yaml";
  r.verified.artifact = r.artifact;
  r.verified.format = "compressed-tensors";
  r.verified.tensors = 692;
  r.verified.bytes_checked = 113'200'000;
  r.verified.layers = {{"model.layers.0.mlp.up_proj", "w4a16 g64 symmetric", 0.004, 0.004},
                       {"model.layers.0.mlp.down_proj", "w4a16 g64 symmetric", 0.008, 0.008}};
  r.verified.seconds = 0.4;
  r.evaluated = SampleEvalReport();
  r.checks = {
      {"kl", Unit::kNumber, false, 0.1, 0.12345, 0.0021, false, ""},
      {"perplexity_increase", Unit::kShare, false, 0.12, 0.1185, 0.0034, true,
       "the limit lies inside the 95 % interval: more text would decide"},
      {"top1_agreement", Unit::kShare, true, 0.8, 0.812, {}, true, ""},
      {"weight_bytes", Unit::kBytes, false, 120e6, 113.2e6, {}, true, ""},
      {"max_fallbacks",
       Unit::kCount,
       false,
       0,
       {},
       {},
       true,
       "no quantmill.json of the artifact tells"},
  };
  r.seconds = 76.5;
  return r;
}

}  // namespace quantmill

#endif  // QUANTMILL_TESTS_QUANT_REPORT_SAMPLE_REPORTS_H_
