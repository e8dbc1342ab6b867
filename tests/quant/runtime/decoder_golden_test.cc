// The forward of every family against transformers' logits (make_golden.py), on every backend.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <numeric>

#include "formats/json.h"
#include "quant/runtime/generate.h"
#include "tests/quant/runtime/golden_model.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

// Logits spread over a few units after two layers of sums of at most 80 terms in F32, each exact to
// 80 * 2^-24 = 5e-6 relative; the softmax and norms between them keep errors of that order. Twenty
// times that leaves room for both programs' orders of summation, and is a thousand times below what
// a wrong feature does (the tests below).
constexpr double kLogitTolerance = 1e-4;

double Spread(const std::vector<float>& x) {
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
  double squares = 0;
  for (const float v : x) squares += (v - mean) * (v - mean);
  return std::sqrt(squares / static_cast<double>(x.size()));
}

std::vector<std::string> GoldenNames() {
  return {"llama_gqa",
          "llama_mha_tied_bias",
          "llama_mqa",
          "llama_rope_llama3",
          "llama_rope_linear",
          "llama_rope_yarn",
          "mistral_window",
          "qwen2",
          "qwen2_window",
          "qwen3",
          "phi3",
          "phi3_short_rope",
          "phi3_long_rope",
          "gemma2",
          "gemma3",
          "opt",
          "opt_350m",
          "gpt2",
          "gpt_neox",
          "gpt_neox_sequential",
          "falcon_7b",
          "falcon_40b",
          "falcon_11b",
          "falcon_rw",
          "bloom",
          "mixtral",
          "qwen2_moe",
          "qwen3_moe"};
}

class DecoderGolden : public BackendTest {};

TEST_P(DecoderGolden, LogitsAreThoseOfTransformers) {
  for (const std::string& name : GoldenNames()) {
    const Expected expected = ReadExpected(name);
    const ModelSource source = ModelSource::Open(GoldenFolder(name));
    DecoderModel model(backend(), exec(), source, Compute::kF32);
    const auto logits = RunInSteps(tested(), model, expected.ids, {1000});
    EXPECT_LT(LargestDifference(logits, expected.logits), kLogitTolerance * Spread(expected.logits))
        << name;
  }
}

// Any split of the tokens into steps, block boundaries (16) or not, gives the same bits.
TEST_P(DecoderGolden, DecodeEqualsPrefillBitForBit) {
  for (const std::string& name : GoldenNames()) {
    if (name == "phi3_long_rope") continue;  // GenerateBeyondTheOriginalContext
    const Expected expected = ReadExpected(name);
    const ModelSource source = ModelSource::Open(GoldenFolder(name));
    for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
      DecoderModel model(backend(), exec(), source, compute);
      const auto whole = RunInSteps(tested(), model, expected.ids, {1000});
      std::vector<std::vector<int64_t>> splits = {{15, 1, 1, 16, 2}};
      if (!IsSlow()) splits.insert(splits.end(), {{1}, {16, 16, 1}, {31, 2, 1}});
      for (const std::vector<int64_t>& steps : splits) {
        EXPECT_EQ(RunInSteps(tested(), model, expected.ids, steps), whole)
            << name << ", steps from " << steps[0];
      }
    }
  }
}

TEST_P(DecoderGolden, BF16IsCloseToF32) {
  const Expected expected = ReadExpected("llama_gqa");
  const ModelSource source = ModelSource::Open(GoldenFolder("llama_gqa"));
  DecoderModel model(backend(), exec(), source, Compute::kBF16);
  const auto logits = RunInSteps(tested(), model, expected.ids, {1000});
  const double difference = LargestDifference(logits, expected.logits);
  EXPECT_LT(difference, 0.2 * Spread(expected.logits));
  EXPECT_GT(difference, 1e-4) << "the inputs were not rounded to BF16 at all";
}

QUANTMILL_ALL_BACKENDS(DecoderGolden);

void ZeroTensor(const std::filesystem::path& file, const std::string& name) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  uint64_t header_size = 0;
  stream.read(reinterpret_cast<char*>(&header_size), sizeof(header_size));
  std::string header(header_size, ' ');
  stream.read(header.data(), static_cast<std::streamsize>(header_size));
  const nlohmann::json offsets = ParseJson(header, "test").at(name).at("data_offsets");
  const auto begin = offsets[0].get<int64_t>();
  const std::string zeros(static_cast<size_t>(offsets[1].get<int64_t>() - begin), '\0');
  stream.seekp(static_cast<std::streamoff>(sizeof(header_size) + header_size) + begin);
  stream << zeros;
}

// The golden models are sensitive to each feature: dropping it breaks the tolerance.
// `edit` sees config.json; `zeroed`: a tensor that becomes all zeros.
double DifferenceWith(const std::string& name, const std::function<void(nlohmann::json&)>& edit,
                      const std::string& zeroed = "") {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / ("golden_without_" + name);
  std::filesystem::remove_all(folder);
  std::filesystem::copy(GoldenFolder(name), folder);
  std::filesystem::remove(folder / "expected.safetensors");
  nlohmann::json config = ReadJsonFile(folder / "config.json");
  edit(config);
  std::ofstream(folder / "config.json") << config;
  if (!zeroed.empty()) ZeroTensor(folder / "model.safetensors", zeroed);
  const Expected expected = ReadExpected(name);
  BackendRun run(CpuBackend(AvailableIsas().front(), 1));
  const ModelSource source = ModelSource::Open(folder.string());
  DecoderModel model(run.backend(), run.exec(), source, Compute::kF32);
  const double difference =
      LargestDifference(RunInSteps(run, model, expected.ids, {1000}), expected.logits);
  std::filesystem::remove_all(folder);
  return difference / Spread(expected.logits);
}

TEST(DecoderFeatures, EachOneMatters) {
  const auto without = [](const char* key) {
    return [key](nlohmann::json& config) { config.erase(key); };
  };
  for (const char* name : {"llama_rope_llama3", "llama_rope_linear", "llama_rope_yarn"}) {
    EXPECT_GT(DifferenceWith(name, without("rope_scaling")), 100 * kLogitTolerance) << name;
  }
  EXPECT_GT(DifferenceWith("llama_rope_llama3", without("rope_theta")), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("mistral_window", without("sliding_window")), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("qwen2_window", without("max_window_layers")), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("phi3", without("sliding_window")), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("phi3", without("partial_rotary_factor")), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("llama_mha_tied_bias", without("attention_bias")),
            100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("llama_mha_tied_bias", without("mlp_bias")), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("qwen2",
                           [](nlohmann::json& c) { c["architectures"][0] = "LlamaForCausalLM"; }),
            100 * kLogitTolerance)
      << "biases of q, k, v";
  EXPECT_GT(DifferenceWith("qwen3",
                           [](nlohmann::json& c) { c["architectures"][0] = "LlamaForCausalLM"; }),
            100 * kLogitTolerance)
      << "norms of q and k";
}

// What is added is switched off by zeros.
TEST(DecoderFeatures, EachAddedTensorMatters) {
  const std::vector<std::pair<const char*, std::vector<const char*>>> added = {
      {"opt",
       {"model.decoder.embed_positions.weight", "model.decoder.final_layer_norm.bias",
        "model.decoder.layers.0.self_attn_layer_norm.bias",
        "model.decoder.layers.1.final_layer_norm.bias", "model.decoder.layers.0.fc1.bias",
        "model.decoder.layers.0.self_attn.out_proj.bias"}},
      {"gpt2", {"wpe.weight", "h.0.attn.c_attn.bias", "h.1.mlp.c_proj.bias", "h.1.ln_1.bias"}},
      {"gpt_neox",
       {"gpt_neox.layers.0.attention.query_key_value.bias",
        "gpt_neox.layers.0.post_attention_layernorm.bias", "gpt_neox.final_layer_norm.bias"}},
      {"falcon_40b", {"transformer.h.0.ln_attn.bias", "transformer.h.0.ln_mlp.bias"}},
      {"falcon_rw", {"transformer.h.1.mlp.dense_h_to_4h.bias"}},
      {"bloom", {"transformer.word_embeddings_layernorm.bias"}},
  };
  for (const auto& [name, tensors] : added) {
    for (const char* tensor : tensors) {
      EXPECT_GT(DifferenceWith(
                    name, [](nlohmann::json&) {}, tensor),
                100 * kLogitTolerance)
          << tensor;
    }
  }
}

TEST(DecoderFeatures, EachOneOfTheOlderFamiliesMatters) {
  const auto set = [](const std::string& key, const nlohmann::json& value) {
    return [key, value](nlohmann::json& config) { config[key] = value; };
  };
  EXPECT_GT(DifferenceWith("opt", set("activation_function", "gelu")), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("opt", set("enable_bias", false)), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("gpt2", set("activation_function", "relu")), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("gpt_neox", set("use_parallel_residual", false)), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("gpt_neox", set("rotary_pct", 0.5)), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("gpt_neox", set("rotary_emb_base", 10000)), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("gpt_neox_sequential", set("use_parallel_residual", true)),
            100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("falcon_7b", set("rope_theta", 100)), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("falcon_rw", set("alibi", false)), 100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("opt_350m",
                           [](nlohmann::json& config) {
                             config["do_layer_norm_before"] = true;
                             config["_remove_final_layer_norm"] = true;
                           }),
            100 * kLogitTolerance);
}

TEST(DecoderFeatures, EachOneOfPhi3sRopeMatters) {
  const auto edit = [](const char* key, const nlohmann::json& value) {
    return [key, value](nlohmann::json& config) { config["rope_scaling"][key] = value; };
  };
  const nlohmann::json ones = {1, 1, 1, 1};
  EXPECT_GT(DifferenceWith("phi3_short_rope", edit("short_factor", ones)), 100 * kLogitTolerance);
  EXPECT_LT(DifferenceWith("phi3_short_rope", edit("long_factor", ones)), kLogitTolerance);
  EXPECT_GT(DifferenceWith("phi3_long_rope", edit("long_factor", ones)), 100 * kLogitTolerance);
  EXPECT_LT(DifferenceWith("phi3_long_rope", edit("short_factor", ones)), kLogitTolerance);
  for (const char* name : {"phi3_short_rope", "phi3_long_rope"}) {
    EXPECT_GT(DifferenceWith(name, edit("attention_factor", 1.0)), 100 * kLogitTolerance) << name;
  }
}

// What config.json cannot switch off is switched off in its description.
double DifferenceWithSpec(const std::string& name, const std::function<void(DecoderSpec&)>& edit) {
  const Expected expected = ReadExpected(name);
  BackendRun run(CpuBackend(AvailableIsas().front(), 1));
  ModelSource source = ModelSource::Open(GoldenFolder(name));
  edit(const_cast<DecoderSpec&>(source.spec()));  // NOLINT(*-const-cast): `source` is not const
  DecoderModel model(run.backend(), run.exec(), source, Compute::kF32);
  return LargestDifference(RunInSteps(run, model, expected.ids, {1000}), expected.logits) /
         Spread(expected.logits);
}

TEST(DecoderFeatures, EachOneOfGemmasMatters) {
  using Edit = std::function<void(DecoderSpec&)>;
  const auto each = [](void (*edit)(BlockSpec&)) -> Edit {
    return [edit](DecoderSpec& spec) { std::ranges::for_each(spec.blocks, edit); };
  };
  const std::vector<std::pair<const char*, Edit>> both = {
      {"gains of 1 + w", [](DecoderSpec& s) { s.gain_offset = 0; }},
      {"scaled embedding", [](DecoderSpec& s) { s.embedding_scale = 1; }},
      {"query_pre_attn_scalar", [](DecoderSpec& s) { s.attention_scale = 0; }},
      {"activation", [](DecoderSpec& s) { s.activation = Activation::kSilu; }},
      {"windows", each([](BlockSpec& b) { b.sliding_window = 0; })},
      {"layers without a window", each([](BlockSpec& b) { b.sliding_window = 8; })},
      {"norm behind attention", each([](BlockSpec& b) { b.attention_post_norm.clear(); })},
      {"norm behind the MLP", each([](BlockSpec& b) { b.mlp_post_norm.clear(); })}};
  for (const auto& [feature, edit] : both) {
    for (const char* name : {"gemma2", "gemma3"}) {
      EXPECT_GT(DifferenceWithSpec(name, edit), 100 * kLogitTolerance) << name << ": " << feature;
    }
  }
  const std::vector<std::pair<const char*, Edit>> gemma2 = {
      {"soft cap of scores", [](DecoderSpec& s) { s.attention_softcap = 0; }},
      {"soft cap of logits", [](DecoderSpec& s) { s.logit_softcap = 0; }}};
  for (const auto& [feature, edit] : gemma2) {
    EXPECT_GT(DifferenceWithSpec("gemma2", edit), 100 * kLogitTolerance) << feature;
  }
  const std::vector<std::pair<const char*, Edit>> gemma3 = {
      {"rope of windows", [](DecoderSpec& s) { s.window_rope = {}; }},
      {"norms of q", each([](BlockSpec& b) { b.query_norm.clear(); })},
      {"norms of k", each([](BlockSpec& b) { b.key_norm.clear(); })}};
  for (const auto& [feature, edit] : gemma3) {
    EXPECT_GT(DifferenceWithSpec("gemma3", edit), 100 * kLogitTolerance) << feature;
  }
  EXPECT_GT(DifferenceWith("gemma3", [](nlohmann::json& c) { c.erase("rope_scaling"); }),
            100 * kLogitTolerance);
}

TEST(DecoderFeatures, EachOneOfFalconsAndBloomsMatters) {
  const auto sequential = [](DecoderSpec& s) { s.order = BlockOrder::kSequential; };
  for (const char* name : {"falcon_7b", "falcon_11b", "falcon_40b"}) {
    EXPECT_GT(DifferenceWithSpec(name, sequential), 100 * kLogitTolerance) << name;
  }
  for (const char* name : {"falcon_rw", "bloom"}) {
    EXPECT_GT(DifferenceWithSpec(name, [](DecoderSpec& s) { s.alibi_slopes.clear(); }),
              100 * kLogitTolerance)
        << name;
    // Each head has its own.
    const auto equal = [](DecoderSpec& s) {
      std::ranges::fill(s.alibi_slopes, s.alibi_slopes.front());
    };
    EXPECT_GT(DifferenceWithSpec(name, equal), 100 * kLogitTolerance) << name;
  }
  EXPECT_GT(DifferenceWithSpec("bloom", [](DecoderSpec& s) { s.activation = Activation::kRelu; }),
            100 * kLogitTolerance);
}

// Where a sequence outgrows the context of the short factors, its keys are made again.
TEST(DecoderGenerate, GenerateBeyondTheOriginalContext) {
  const std::vector<int32_t> ids = ReadExpected("phi3_long_rope").ids;
  BackendRun run(CpuBackend(AvailableIsas().front(), 1));
  const ModelSource source = ModelSource::Open(GoldenFolder("phi3_long_rope"));
  DecoderModel model(run.backend(), run.exec(), source, Compute::kF32);
  std::vector<int32_t> sequence(ids.begin(), ids.begin() + 28);
  GenerationOptions options;
  options.max_tokens = 10;  // 32 are of the short factors
  options.sampling.temperature = 0;
  const GenerationResult generated =
      Generate(run.backend(), run.exec(), model, sequence, options, [](int32_t) { return true; });
  for (const int32_t id : generated.ids) {
    const std::vector<float> logits = RunInSteps(run, model, sequence, {1000});
    const auto last = logits.end() - source.spec().vocab;
    EXPECT_EQ(id, std::max_element(last, logits.end()) - last) << sequence.size();
    sequence.push_back(id);
  }
}

// Learned positions end: one token too many is refused, and the message says how many there are.
TEST(DecoderPositions, BeyondTheLearnedOnesAreRefused) {
  BackendRun run(CpuBackend(AvailableIsas().front(), 1));
  const ModelSource source = ModelSource::Open(GoldenFolder("opt"));
  DecoderModel model(run.backend(), run.exec(), source, Compute::kF32);
  EXPECT_EQ(RunInSteps(run, model, std::vector<int32_t>(64, 5), {64}).size(), 64u * 96);
  try {
    RunInSteps(run, model, std::vector<int32_t>(65, 5), {64, 1});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_NE(error.message().find("64 learned positions"), std::string::npos) << error.message();
  }
}

// Routing and the experts it chooses.
TEST(DecoderFeatures, EachOneOfMixturesMatters) {
  EXPECT_GT(DifferenceWith("mixtral", [](nlohmann::json& c) { c["num_experts_per_tok"] = 1; }),
            100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("qwen2_moe", [](nlohmann::json& c) { c["norm_topk_prob"] = true; }),
            100 * kLogitTolerance);
  EXPECT_GT(DifferenceWith("qwen3_moe", [](nlohmann::json& c) { c["norm_topk_prob"] = false; }),
            100 * kLogitTolerance);
  const auto without = [](const std::string& tensor) {
    return DifferenceWith(
        "qwen2_moe", [](nlohmann::json&) {}, tensor);
  };
  const std::string mlp = "model.layers.1.mlp.";
  EXPECT_GT(without(mlp + "shared_expert.down_proj.weight"), 100 * kLogitTolerance)
      << "the shared expert";
  EXPECT_GT(without(mlp + "shared_expert_gate.weight"), 100 * kLogitTolerance)
      << "a gate of 0 scales the shared expert by 1/2";
  EXPECT_GT(without(mlp + "gate.weight"), 100 * kLogitTolerance)
      << "a router of 0 chooses the first experts";
}

// Which layers are mixtures: without the key, tensors are looked for that are not there.
TEST(DecoderFeatures, SparseLayersAreThoseOfTheConfiguration) {
  const auto missing = [](const char* name, const char* key) -> std::string {
    try {
      DifferenceWith(name, [&](nlohmann::json& config) { config.erase(key); });
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(missing("qwen2_moe", "decoder_sparse_step"),
              testing::HasSubstr("model.layers.0.mlp.shared_expert.gate_proj.weight"));
  EXPECT_THAT(missing("qwen3_moe", "mlp_only_layers"),
              testing::HasSubstr("model.layers.1.mlp.experts.0.gate_proj.weight"));
}

// The oracle itself runs the models too: sums in double.
TEST(DecoderReference, AgreesWithTransformers) {
  BackendRun run(ReferenceBackend());
  for (const char* name : {"llama_gqa", "qwen3", "mistral_window", "gemma2", "gemma3",
                           "phi3_long_rope", "opt", "opt_350m", "gpt2", "gpt_neox", "falcon_7b",
                           "falcon_40b", "falcon_rw", "bloom", "qwen2_moe"}) {
    const Expected expected = ReadExpected(name);
    const ModelSource source = ModelSource::Open(GoldenFolder(name));
    DecoderModel model(run.backend(), run.exec(), source, Compute::kF32);
    EXPECT_LT(LargestDifference(RunInSteps(run, model, expected.ids, {1000}), expected.logits),
              kLogitTolerance * Spread(expected.logits))
        << name;
  }
}

}  // namespace
}  // namespace quantmill::test
