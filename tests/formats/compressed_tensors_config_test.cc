#include "formats/compressed_tensors_config.h"

#include "tests/formats/format_test_util.h"

namespace quantmill::test {
namespace {

using nlohmann::json;

json Args() {
  return {{"num_bits", 4},
          {"type", "int"},
          {"symmetric", true},
          {"group_size", 128},
          {"strategy", "group"}};
}

json Config() {
  return {{"quant_method", "compressed-tensors"},
          {"format", "pack-quantized"},
          {"quantization_status", "compressed"},
          {"ignore", {"lm_head"}},
          {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"weights", Args()}}}}}};
}

CompressedTensorsConfig Parse(const json& config) {
  return CompressedTensorsConfig::Parse(config, "config.json");
}

// The group's weights with one key changed.
json WithArg(const std::string& key, const json& value) {
  json config = Config();
  config["config_groups"]["group_0"]["weights"][key] = value;
  return config;
}

void ExpectBad(const json& config, const std::vector<std::string>& parts) {
  ExpectError(ErrorCode::kBadInput, parts, [&] { Parse(config); });
}

TEST(CompressedTensorsConfig, Minimal) {
  const CompressedTensorsConfig config = Parse(Config());
  EXPECT_EQ(config.ArgsFor("model.l"), (PackedWeightArgs{4, true, 128}));
  EXPECT_EQ(config.ArgsFor("lm_head"), std::nullopt);
}

TEST(CompressedTensorsConfig, Arguments) {
  json config = WithArg("strategy", "channel");
  config["config_groups"]["group_0"]["weights"]["group_size"] = nullptr;
  EXPECT_EQ(Parse(config).ArgsFor("l")->group_size, QuantScheme::kPerChannel);
  config["config_groups"]["group_0"]["weights"]["group_size"] = -1;
  EXPECT_EQ(Parse(config).ArgsFor("l")->group_size, QuantScheme::kPerChannel);
  config["config_groups"]["group_0"]["weights"].erase("strategy");
  EXPECT_EQ(Parse(config).ArgsFor("l")->group_size, QuantScheme::kPerChannel);
  EXPECT_NO_THROW(Parse(WithArg("actorder", "weight")));
  EXPECT_NO_THROW(Parse(WithArg("actorder", "Static")));
  EXPECT_NO_THROW(Parse(WithArg("actorder", false)));
  EXPECT_NO_THROW(Parse(WithArg("observer", "mse")));
  EXPECT_NO_THROW(Parse(WithArg("strategy", "GROUP")));
  EXPECT_EQ(Parse(WithArg("symmetric", false)).ArgsFor("l")->symmetric, false);
}

TEST(CompressedTensorsConfig, RefusesArgumentsByName) {
  const std::string path = "quantization_config.config_groups.group_0.weights.";
  ExpectBad(WithArg("strategy", "block"), {path + "strategy", "'block'"});
  ExpectBad(WithArg("strategy", "tensor"), {"'tensor'"});
  ExpectBad(WithArg("strategy", "tensor_group"), {"'tensor_group'"});
  ExpectBad(WithArg("strategy", "newest"), {"'newest'"});
  ExpectBad(WithArg("strategy", "channel"), {path + "group_size"});
  ExpectBad(WithArg("group_size", 0), {path + "group_size"});
  ExpectBad(WithArg("group_size", 1.5), {path + "group_size", "whole number"});
  ExpectBad(WithArg("actorder", "group"), {path + "actorder", "weight_g_idx"});
  ExpectBad(WithArg("actorder", "dynamic"), {path + "actorder"});
  ExpectBad(WithArg("actorder", true), {path + "actorder"});
  ExpectBad(WithArg("num_bits", 1), {path + "num_bits"});
  ExpectBad(WithArg("num_bits", 16), {path + "num_bits"});
  ExpectBad(WithArg("num_bits", "4"), {path + "num_bits"});
  ExpectBad(WithArg("type", "float"), {path + "type", "'float'"});
  ExpectBad(WithArg("dynamic", true), {path + "dynamic"});
  ExpectBad(WithArg("symmetric", 1), {path + "symmetric"});
  ExpectBad(WithArg("block_structure", {1, 2}), {path + "block_structure"});
  ExpectBad(WithArg("zero_code", 0), {path + "zero_code", "unknown key"});
}

TEST(CompressedTensorsConfig, RefusesFeaturesByName) {
  const auto with = [](const std::string& key, const json& value) {
    json config = Config();
    config[key] = value;
    return config;
  };
  ExpectBad(with("format", "int-quantized"), {"format", "'int-quantized'"});
  ExpectBad(with("format", nullptr), {"'dense'"});
  ExpectBad(with("quantization_status", "frozen"), {"'frozen'", "not compressed"});
  ExpectBad(with("kv_cache_scheme", {{"num_bits", 8}}), {"KV cache"});
  ExpectBad(with("sparsity_config", {{"format", "sparse-24"}}), {"sparsity"});
  ExpectBad(with("transform_config", {{"config_groups", {1}}}), {"transform"});
  ExpectBad(with("config_groups", json::object()), {"config_groups", "missing or empty"});
  ExpectBad(with("config_groups", {1}), {"must be an object"});
  ExpectBad(with("ignore", "lm_head"), {"ignore", "list of strings"});
  ExpectBad(with("ignore", {1}), {"list of strings"});
  ExpectBad(with("ignore", {"re:("}), {"bad regular expression"});
  ExpectBad(json("text"), {"must be an object"});
  EXPECT_NO_THROW(Parse(with("sparsity_config", json::object())));
  EXPECT_NO_THROW(Parse(with("some_new_key", 1)));  // the library ignores these too

  const auto with_group = [](const std::string& key, const json& value) {
    json config = Config();
    config["config_groups"]["group_0"][key] = value;
    return config;
  };
  ExpectBad(with_group("input_activations", Args()), {"group_0.input_activations"});
  ExpectBad(with_group("output_activations", Args()), {"group_0.output_activations"});
  ExpectBad(with_group("weights", nullptr), {"group_0.weights", "missing"});
  ExpectBad(with_group("targets", nullptr), {"group_0.targets", "missing"});
  ExpectBad(with_group("format", "nvfp4-pack-quantized"), {"'nvfp4-pack-quantized'"});
  ExpectBad(with_group("scheme", "W4A16"), {"group_0.scheme", "unknown key"});
}

TEST(CompressedTensorsConfig, Targets) {
  json config = Config();
  json eight = Args();
  eight["num_bits"] = 8;
  json three = Args();
  three["num_bits"] = 3;
  config["config_groups"]["group_1"] = {{"targets", {"re:model\\.layers\\.[01]\\."}},
                                        {"weights", eight}};
  config["config_groups"]["group_2"] = {{"targets", {"model.layers.1.q"}}, {"weights", three}};
  config["ignore"] = {"re:.*head", "model.layers.0.gate"};
  const CompressedTensorsConfig parsed = Parse(config);
  const auto bits = [&](const std::string& module) {
    const auto args = parsed.ArgsFor(module);
    return args ? args->bits : 0;
  };
  EXPECT_EQ(bits("model.layers.2.q"), 4);    // class
  EXPECT_EQ(bits("model.layers.0.q"), 8);    // pattern over class
  EXPECT_EQ(bits("model.layers.1.q"), 3);    // name over pattern
  EXPECT_EQ(bits("x.model.layers.0.q"), 4);  // a pattern matches from the start
  EXPECT_EQ(bits("lm_head"), 0);
  EXPECT_EQ(bits("my_headless"), 0);  // and need not reach the end
  EXPECT_EQ(bits("model.layers.0.gate"), 0);
  EXPECT_EQ(bits("model.layers.0.gate_proj"), 8);
  EXPECT_EQ(parsed.exact_targets(), std::vector<std::string>{"model.layers.1.q"});

  config["config_groups"]["group_3"] = {{"targets", {"re:.*q"}}, {"weights", three}};
  ExpectError(ErrorCode::kBadInput, {"'model.layers.0.q'", "group_1", "group_3", "differ"},
              [&] { Parse(config).ArgsFor("model.layers.0.q"); });
}

// golden/config_*.json are what we write; make_golden.py checks that the library accepts them.
TEST(CompressedTensorsConfig, GoldenOutput) {
  const QuantScheme w4{4, true, 128, DType::kF16};
  const QuantScheme w4_bf16{4, true, 128, DType::kBF16};
  const QuantScheme w8{8, false, QuantScheme::kPerChannel, DType::kBF16};
  const std::vector<QuantizedModule> uniform = {{"model.layers.0.q", w4, 8, 128},
                                                {"model.layers.0.k", w4_bf16, 8, 128}};
  const std::vector<QuantizedModule> mixed = {
      {"model.layers.0.q", w4, 8, 128}, {"model.layers.0.k", w8, 8, 128}, {"lm_head", w8, 8, 128}};
  const std::vector<std::string> dense = {"model.layers.0.router"};
  const auto expect = [](const json& got, const std::string& name) {
    const std::string path = "tests/formats/golden/" + name;
    if (std::getenv("QUANTMILL_UPDATE_GOLDEN") != nullptr) WriteFile(path, got.dump(2) + "\n");
    EXPECT_EQ(got.dump(2) + "\n", ReadFile(path));
    EXPECT_NO_THROW(Parse(got));
  };
  expect(MakeCompressedTensorsConfig(uniform, dense), "config_uniform.json");
  expect(MakeCompressedTensorsConfig(mixed, dense), "config_mixed.json");

  const CompressedTensorsConfig parsed = Parse(MakeCompressedTensorsConfig(mixed, dense));
  EXPECT_EQ(parsed.ArgsFor("lm_head"), (PackedWeightArgs{8, false, QuantScheme::kPerChannel}));
  EXPECT_EQ(parsed.ArgsFor("model.layers.0.q"), (PackedWeightArgs{4, true, 128}));
  EXPECT_EQ(parsed.ArgsFor("model.layers.0.router"), std::nullopt);
}

}  // namespace
}  // namespace quantmill::test
