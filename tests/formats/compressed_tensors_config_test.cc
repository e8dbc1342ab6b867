#include <nlohmann/json.hpp>

#include "formats/compressed_tensors/config.h"
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
  EXPECT_EQ(config.SchemeFor("model.l"), (QuantScheme{4, true, 128, DType::kF32}));
  EXPECT_EQ(config.SchemeFor("lm_head"), std::nullopt);
  EXPECT_EQ(config.kv_scheme(), KvScheme{});
}

TEST(CompressedTensorsConfig, Arguments) {
  json config = WithArg("strategy", "channel");
  config["config_groups"]["group_0"]["weights"]["group_size"] = nullptr;
  EXPECT_EQ(Parse(config).SchemeFor("l")->group_size, QuantScheme::kPerChannel);
  config["config_groups"]["group_0"]["weights"]["group_size"] = -1;
  EXPECT_EQ(Parse(config).SchemeFor("l")->group_size, QuantScheme::kPerChannel);
  config["config_groups"]["group_0"]["weights"].erase("strategy");
  EXPECT_EQ(Parse(config).SchemeFor("l")->group_size, QuantScheme::kPerChannel);
  EXPECT_FALSE(Parse(WithArg("actorder", "weight")).HasActOrder("l"));
  EXPECT_FALSE(Parse(WithArg("actorder", "Static")).HasActOrder("l"));
  EXPECT_TRUE(Parse(WithArg("actorder", "group")).HasActOrder("l"));
  EXPECT_TRUE(Parse(WithArg("actorder", "dynamic")).HasActOrder("l"));
  EXPECT_NO_THROW(Parse(WithArg("actorder", false)));
  EXPECT_NO_THROW(Parse(WithArg("observer", "mse")));
  EXPECT_NO_THROW(Parse(WithArg("strategy", "GROUP")));
  EXPECT_EQ(Parse(WithArg("symmetric", false)).SchemeFor("l")->symmetric, false);
}

TEST(CompressedTensorsConfig, RefusesArgumentsByName) {
  const std::string path = "quantization_config.config_groups.group_0.weights.";
  ExpectBad(WithArg("strategy", "block"), {path + "group_size", "'block'"});
  ExpectBad(WithArg("strategy", "tensor"), {path + "group_size", "'tensor'"});
  ExpectBad(WithArg("strategy", "tensor_group"), {"'tensor_group'"});
  ExpectBad(WithArg("strategy", "newest"), {"'newest'"});
  ExpectBad(WithArg("strategy", "channel"), {path + "group_size"});
  ExpectBad(WithArg("group_size", 0), {path + "group_size"});
  ExpectBad(WithArg("group_size", 1.5), {path + "group_size", "whole number"});
  ExpectBad(WithArg("actorder", "newest"), {path + "actorder", "'newest' is unknown"});
  ExpectBad(WithArg("actorder", true), {path + "actorder"});
  ExpectBad(WithArg("num_bits", 1), {path + "num_bits"});
  ExpectBad(WithArg("num_bits", 16), {path + "num_bits"});
  ExpectBad(WithArg("num_bits", "4"), {path + "num_bits"});
  ExpectBad(WithArg("type", "float"), {path + "group_size", "32"});
  ExpectBad(WithArg("type", "complex"), {path + "type", "'complex'"});
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
  ExpectBad(with("format", "int-quantized"), {"format", "'int-quantized'", "'pack-quantized'"});
  ExpectBad(with("format", "mxfp6-pack-quantized"), {"format", "'mxfp6-pack-quantized'", "known:"});
  ExpectBad(with("format", nullptr), {"'dense'"});
  ExpectBad(with("quantization_status", "frozen"), {"'frozen'", "not compressed"});
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
  ExpectBad(with_group("input_activations", Args()),
            {"group_0.input_activations", "integers of 4 bits"});
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
    const auto args = parsed.SchemeFor(module);
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
              [&] { Parse(config).SchemeFor("model.layers.0.q"); });
}

json Float8(const std::string& strategy) {
  return {{"num_bits", 8}, {"type", "float"}, {"strategy", strategy}};
}

// A configuration with one group of these.
json WithGroup(const std::string& format, const json& weights, const json& inputs = nullptr) {
  json config = Config();
  config["format"] = format;
  config["config_groups"]["group_0"]["weights"] = weights;
  config["config_groups"]["group_0"]["input_activations"] = inputs;
  return config;
}

QuantScheme SchemeOf(const json& config) { return Parse(config).SchemeFor("l").value(); }

TEST(CompressedTensorsConfig, Floats) {
  const QuantScheme channel{8, true, -1, DType::kF32, CodeType::kFp8};
  EXPECT_EQ(SchemeOf(WithGroup("naive-quantized", Float8("channel"))), channel);
  QuantScheme tensor = channel;
  tensor.row_block = QuantScheme::kAllRows;
  EXPECT_EQ(SchemeOf(WithGroup("float-quantized", Float8("tensor"))), tensor);
  EXPECT_EQ(SchemeOf(WithGroup("float-quantized", {{"type", "float"}})), tensor);
  json block = Float8("block");
  block["block_structure"] = {64, 32};
  const QuantScheme blocks{8, true, 32, DType::kF32, CodeType::kFp8, 64};
  EXPECT_EQ(SchemeOf(WithGroup("naive-quantized", block)), blocks);
  block["block_structure"] = "64x32";
  EXPECT_EQ(SchemeOf(WithGroup("naive-quantized", block)), blocks);
  for (const json& bad : {json("64x"), json("64x32x2"), json({64}), json({64, 0}), json("x"),
                          json({64, 1.5}), json(nullptr), json({int64_t{1} << 40, 1})}) {
    block["block_structure"] = bad;
    ExpectBad(WithGroup("naive-quantized", block), {"weights.block_structure"});
  }
  ExpectBad(WithGroup("pack-quantized", Float8("channel")), {"'pack-quantized' of fp8"});
  ExpectBad(WithGroup("int-quantized", Float8("channel")), {"'int-quantized' of fp8"});
  ExpectBad(WithGroup("float-quantized", Float8("token")), {"'token'", "FP8"});
  json asymmetric = Float8("channel");
  asymmetric["symmetric"] = false;
  ExpectBad(WithGroup("float-quantized", asymmetric), {"weights.symmetric", "zero points"});
  json six = Float8("channel");
  six["num_bits"] = 6;
  ExpectBad(WithGroup("float-quantized", six), {"floats of 6 bits"});
}

TEST(CompressedTensorsConfig, Fp4) {
  json args = {{"num_bits", 4},
               {"type", "float"},
               {"strategy", "tensor_group"},
               {"group_size", 16},
               {"scale_dtype", "torch.float8_e4m3fn"}};
  const QuantScheme nvfp4{4, true, 16, DType::kF8E4M3, CodeType::kFp4};
  EXPECT_EQ(SchemeOf(WithGroup("nvfp4-pack-quantized", args)), nvfp4);
  ExpectBad(WithGroup("mxfp4-pack-quantized", args), {"'mxfp4-pack-quantized' of nvfp4"});
  args.erase("scale_dtype");
  EXPECT_EQ(SchemeOf(WithGroup("nvfp4-pack-quantized", args)), nvfp4);
  args["scale_dtype"] = "torch.bfloat16";
  ExpectBad(WithGroup("nvfp4-pack-quantized", args), {"weights.scale_dtype", "'torch.bfloat16'"});
  args = {{"num_bits", 4},
          {"type", "float"},
          {"strategy", "group"},
          {"group_size", 32},
          {"scale_dtype", "torch.uint8"}};
  EXPECT_EQ(SchemeOf(WithGroup("mxfp4-pack-quantized", args)),
            (QuantScheme{4, true, 32, DType::kF8E8M0, CodeType::kFp4}));
  args["group_size"] = 64;
  ExpectBad(WithGroup("mxfp4-pack-quantized", args), {"weights.group_size", "32"});
  args["group_size"] = 32;
  args["dynamic"] = "local";
  ExpectBad(WithGroup("mxfp4-pack-quantized", args), {"weights.dynamic", "static"});
}

// llm-compressor's NVFP4, MXFP4 and MXFP8.
TEST(CompressedTensorsConfig, InputsWithScalesOfGroups) {
  using Type = InputScheme::Type;
  json nvfp4 = {{"num_bits", 4},
                {"type", "float"},
                {"strategy", "tensor_group"},
                {"group_size", 16},
                {"scale_dtype", "torch.float8_e4m3fn"}};
  json local = nvfp4;
  local["dynamic"] = "local";
  const json with_nvfp4 = WithGroup("nvfp4-pack-quantized", nvfp4, local);
  EXPECT_EQ(SchemeOf(with_nvfp4).input, (InputScheme{Type::kFp4, true, true, 16, DType::kF8E4M3}));
  json mxfp4 = {{"num_bits", 4},
                {"type", "float"},
                {"strategy", "group"},
                {"group_size", 32},
                {"scale_dtype", "torch.uint8"}};
  json dynamic = mxfp4;
  dynamic["dynamic"] = true;
  EXPECT_EQ(SchemeOf(WithGroup("mxfp4-pack-quantized", mxfp4, dynamic)).input,
            (InputScheme{Type::kFp4, true, true, 32, DType::kF8E8M0}));
  json mxfp8 = mxfp4;
  mxfp8["num_bits"] = 8;
  json dynamic8 = dynamic;
  dynamic8["num_bits"] = 8;
  const QuantScheme scheme = SchemeOf(WithGroup("mxfp8-quantized", mxfp8, dynamic8));
  EXPECT_EQ(scheme.scale_dtype, DType::kF8E8M0);
  EXPECT_EQ(scheme.input, (InputScheme{Type::kFp8, true, true, 32, DType::kF8E8M0}));
  EXPECT_EQ(SchemeOf(WithGroup("mxfp8-quantized", mxfp8)).input, InputScheme{});
  ExpectBad(WithGroup("float-quantized", mxfp8, dynamic8), {"'float-quantized' of mxfp8"});
  ExpectBad(WithGroup("mxfp8-quantized", Float8("channel")), {"'mxfp8-quantized' of fp8"});

  const auto bad = [&](const json& inputs, const std::vector<std::string>& parts) {
    ExpectBad(WithGroup("nvfp4-pack-quantized", nvfp4, inputs), parts);
  };
  local["dynamic"] = true;
  bad(local, {"input_activations.dynamic", "\"local\""});
  local["dynamic"] = false;
  bad(local, {"input_activations.dynamic", "\"local\""});
  local["dynamic"] = "locally";
  bad(local, {"input_activations.dynamic", "\"locally\" is neither"});
  dynamic["dynamic"] = "local";
  bad(dynamic, {"input_activations.dynamic", "must be true"});
  dynamic["dynamic"] = true;
  bad(dynamic, {"nvfp4 weights with inputs of another kind"});
  dynamic["num_bits"] = 6;
  bad(dynamic, {"input_activations.num_bits", "floats of 6 bits"});
  json token = Float8("token");
  token["dynamic"] = "local";
  bad(token, {"input_activations.dynamic", "FP4 alone"});
}

TEST(CompressedTensorsConfig, Inputs) {
  using Type = InputScheme::Type;
  const json int8 = {{"num_bits", 8}, {"type", "int"}, {"strategy", "channel"}};
  const auto input_of = [&](const json& inputs) {
    return SchemeOf(WithGroup("int-quantized", int8, inputs)).input;
  };
  json token = {{"num_bits", 8}, {"type", "int"}, {"strategy", "token"}, {"dynamic", true}};
  EXPECT_EQ(input_of(token), (InputScheme{Type::kInt8, true, true}));
  json fixed = {{"num_bits", 8}, {"type", "int"}, {"strategy", "tensor"}};
  EXPECT_EQ(input_of(fixed), (InputScheme{Type::kInt8, false, true}));
  fixed["symmetric"] = false;
  EXPECT_EQ(input_of(fixed), (InputScheme{Type::kInt8, false, false}));
  const auto bad = [&](const json& inputs, const std::string& part) {
    ExpectBad(WithGroup("int-quantized", int8, inputs), {part});
  };
  fixed["strategy"] = "token";
  bad(fixed, "'token' cannot be read for static inputs");
  token["symmetric"] = false;
  bad(token, "dynamic inputs with zero points");
  token["symmetric"] = true;
  token["strategy"] = "tensor";
  bad(token, "'tensor' cannot be read for dynamic inputs");
  token["strategy"] = "group";
  token["group_size"] = 128;
  bad(token, "inputs in groups");
  json floats = Float8("token");
  floats["dynamic"] = true;
  ExpectBad(WithGroup("pack-quantized", int8, fixed), {"input_activations.strategy"});
  // W4A8 and W4AFP8: four-bit codes beside rounded inputs.
  json four = int8;
  four["num_bits"] = 4;
  EXPECT_EQ(SchemeOf(WithGroup("int-quantized", four, floats)).bits, 4);
  EXPECT_EQ(SchemeOf(WithGroup("pack-quantized", four, floats)).input.type, Type::kFp8);
  fixed["strategy"] = "tensor";
  EXPECT_EQ(SchemeOf(WithGroup("int-quantized", four, fixed)).input.type, Type::kInt8);
  ExpectBad(WithGroup("pack-quantized", four, fixed), {"group_0", "other than dynamic ones"});
}

TEST(CompressedTensorsConfig, Cache) {
  const auto with = [](const json& kv) {
    json config = Config();
    config["kv_cache_scheme"] = kv;
    return config;
  };
  EXPECT_EQ(Parse(with(Float8("tensor"))).kv_scheme(), (KvScheme{KvScheme::Type::kFp8, false}));
  EXPECT_EQ(Parse(with(Float8("attn_head"))).kv_scheme(), (KvScheme{KvScheme::Type::kFp8, true}));
  ExpectBad(with({{"num_bits", 8}}), {"kv_cache_scheme.num_bits", "8-bit floats"});
  ExpectBad(with(Float8("token")), {"kv_cache_scheme.strategy", "'token'"});
  json dynamic = Float8("tensor");
  dynamic["dynamic"] = true;
  ExpectBad(with(dynamic), {"kv_cache_scheme.dynamic"});
}

TEST(CompressedTensorsConfig, GroupsOfMixedFilesNeedNoFormat) {
  json config = WithGroup("mixed-precision", Float8("channel"));
  EXPECT_EQ(SchemeOf(config).code_type, CodeType::kFp8);
  config["config_groups"]["group_0"]["format"] = "pack-quantized";
  ExpectBad(config, {"group_0.format", "'pack-quantized'"});
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
  expect(MakeCompressedTensorsConfig(uniform, dense, {}), "config_uniform.json");
  expect(MakeCompressedTensorsConfig(mixed, dense, {}), "config_mixed.json");

  using Input = InputScheme;
  const Input int8_token{Input::Type::kInt8, true, true};
  const Input fp8_token{Input::Type::kFp8, true, true};
  const Input fp8_fixed{Input::Type::kFp8, false, true};
  const Input fp8_groups{Input::Type::kFp8, true, true, 128};
  const Input nvfp4_groups{Input::Type::kFp4, true, true, 16, DType::kF8E4M3};
  const std::vector<QuantizedModule> presets = {
      {"m.w4a16", w4, 8, 128},
      {"m.w8a8", {8, true, -1, DType::kF16, CodeType::kInt, 1, int8_token}, 8, 128},
      {"m.fp8",
       {8, true, -1, DType::kF16, CodeType::kFp8, QuantScheme::kAllRows, fp8_fixed},
       8,
       128},
      {"m.fp8_dynamic", {8, true, -1, DType::kF16, CodeType::kFp8, 1, fp8_token}, 8, 128},
      {"m.fp8_block", {8, true, 128, DType::kF32, CodeType::kFp8, 128, fp8_groups}, 8, 128},
      {"m.nvfp4", {4, true, 16, DType::kF8E4M3, CodeType::kFp4}, 8, 128},
      {"m.nvfp4a4", {4, true, 16, DType::kF8E4M3, CodeType::kFp4, 1, nvfp4_groups}, 8, 128},
      {"m.mxfp4", {4, true, 32, DType::kF8E8M0, CodeType::kFp4}, 8, 128},
      {"m.fp8_a16", {8, true, -1, DType::kF16, CodeType::kFp8}, 8, 128}};
  const json all = MakeCompressedTensorsConfig(presets, dense, {KvScheme::Type::kFp8, true});
  expect(all, "config_presets.json");
  for (const QuantizedModule& module : presets) {
    QuantScheme scheme = Parse(all).SchemeFor(module.name).value();
    if (scheme.code_type != CodeType::kFp4) scheme.scale_dtype = module.scheme.scale_dtype;
    EXPECT_EQ(scheme, module.scheme) << module.name;
  }
  EXPECT_EQ(Parse(all).kv_scheme(), (KvScheme{KvScheme::Type::kFp8, true}));

  const CompressedTensorsConfig parsed = Parse(MakeCompressedTensorsConfig(mixed, dense, {}));
  EXPECT_EQ(parsed.SchemeFor("lm_head"),
            (QuantScheme{8, false, QuantScheme::kPerChannel, DType::kF32}));
  EXPECT_EQ(parsed.SchemeFor("model.layers.0.q"), (QuantScheme{4, true, 128, DType::kF32}));
  EXPECT_EQ(parsed.SchemeFor("model.layers.0.router"), std::nullopt);
}

}  // namespace
}  // namespace quantmill::test
