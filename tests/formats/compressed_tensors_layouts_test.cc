// Every layout: round trips, what is refused, and files that are wrong, tensor by tensor.
#include <limits>

#include "formats/compressed_tensors.h"
#include "tests/formats/artifact_test_util.h"

namespace quantmill::test {
namespace {

using testing::Contains;
using testing::IsEmpty;

constexpr int64_t kPerChannel = QuantScheme::kPerChannel;
constexpr int64_t kAllRows = QuantScheme::kAllRows;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

const InputScheme kNoInput = {};
const InputScheme kInt8Token = {InputScheme::Type::kInt8, true, true};
const InputScheme kInt8Static = {InputScheme::Type::kInt8, false, true};
const InputScheme kInt8StaticAsymmetric = {InputScheme::Type::kInt8, false, false};
const InputScheme kFp8Token = {InputScheme::Type::kFp8, true, true};
const InputScheme kFp8Static = {InputScheme::Type::kFp8, false, true};
const InputScheme kFp8Groups = {InputScheme::Type::kFp8, true, true, 16};

QuantScheme Int8(const InputScheme& input, int64_t row_block = 1, DType dtype = DType::kBF16) {
  return {8, true, kPerChannel, dtype, CodeType::kInt, row_block, input};
}
QuantScheme Fp8(const InputScheme& input, int64_t row_block = 1, int64_t group = kPerChannel,
                DType dtype = DType::kF32) {
  return {8, true, group, dtype, CodeType::kFp8, row_block, input};
}
QuantScheme WithInput(QuantScheme scheme, const InputScheme& input) {
  scheme.input = input;
  return scheme;
}
const QuantScheme kNvfp4 = {4, true, 16, DType::kF8E4M3, CodeType::kFp4};
const QuantScheme kMxfp4 = {4, true, 32, DType::kF8E8M0, CodeType::kFp4};
const InputScheme kNvfp4Input = {InputScheme::Type::kFp4, true, true, 16, DType::kF8E4M3};
const InputScheme kMxfp4Input = {InputScheme::Type::kFp4, true, true, 32, DType::kF8E8M0};
const InputScheme kMxfp8Input = {InputScheme::Type::kFp8, true, true, 32, DType::kF8E8M0};
const QuantScheme kNvfp4Inputs = WithInput(kNvfp4, kNvfp4Input);

std::vector<QuantScheme> AllSchemes() {
  std::vector<QuantScheme> schemes = {kNvfp4, kMxfp4, kNvfp4Inputs, WithInput(kMxfp4, kMxfp4Input),
                                      WithInput(kMxfp4, kFp8Token)};
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t rows : {int64_t{1}, kAllRows}) {
      for (const InputScheme& input : {kInt8Token, kInt8Static, kInt8StaticAsymmetric}) {
        schemes.push_back(Int8(input, rows, dtype));
      }
      for (const InputScheme& input : {kNoInput, kFp8Token, kFp8Static}) {
        schemes.push_back(Fp8(input, rows, kPerChannel, dtype));
      }
    }
    schemes.push_back(Fp8(kFp8Groups, 8, 16, dtype));
    schemes.push_back(Fp8(kNoInput, 8, 16, dtype));
  }
  return schemes;
}

TEST(CompressedTensorsLayouts, RoundTrip) {
  Random random(11);
  NamedLinears linears;
  for (const QuantScheme& scheme : AllSchemes()) {
    for (const int64_t out : {int64_t{1}, int64_t{8}, int64_t{19}}) {
      const int64_t in = scheme.group_size > 0 ? 3 * scheme.group_size : 37;
      linears.emplace_back("model.l" + std::to_string(linears.size()),
                           RandomLinear(scheme, out, in, random));
    }
  }
  TempFolder temp;
  WriteArtifact(temp / "m", linears, CompressedTensorsFormat());
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  const auto reader = OpenArtifactReader(checkpoint);
  EXPECT_EQ(reader->modules().size(), linears.size());
  for (const auto& [name, want] : linears) {
    EXPECT_EQ(reader->SchemeOf(name), want.scheme);
    ExpectSameLinear(reader->Read(name), want);
    const QuantizedModule module = reader->Describe(name);
    EXPECT_EQ(module.out, want.out);
    EXPECT_EQ(module.in, want.in);
    const auto declared = CompressedTensorsFormat().Declare(module);
    EXPECT_EQ(reader->TensorsOf(name).size(), declared.size());
    for (const TensorDeclaration& tensor : declared) {
      EXPECT_THAT(reader->TensorsOf(name), Contains(tensor.name));
    }
  }
}

// Worked by hand, formats.md section 4.2.
TEST(CompressedTensorsLayouts, Fp4BytesHoldTheEvenInputLow) {
  QuantizedLinear linear{kNvfp4, 1, 16, {}, {}, {}};
  const auto code = [](float x) { return NearestCode(CodeType::kFp4, x); };
  linear.codes.assign(16, 0);
  linear.codes[0] = code(-0.5f);
  linear.codes[1] = code(1);
  linear.codes[2] = code(-6);
  linear.codes[3] = code(0);
  linear.scales = {0.5f};
  linear.global_scale = 4;
  TempFolder temp;
  WriteArtifact(temp / "m", {{"l", linear}}, CompressedTensorsFormat());
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  const auto packed = checkpoint.Bytes("l.weight_packed");
  EXPECT_EQ(packed[0], std::byte{0x29});
  EXPECT_EQ(packed[1], std::byte{0x0F});
  EXPECT_EQ(checkpoint.Bytes("l.weight_scale")[0], std::byte{0x30});  // E4M3 of 0.5
  const Tensor weight = HostTensor(DType::kF32, 1, 16);
  Dequantize(OpenArtifactReader(checkpoint)->Read("l"), weight);
  EXPECT_EQ(weight.Row<float>(0)[2], -0.75f);  // -6 * 0.5 / 4
}

TEST(CompressedTensorsLayouts, Mxfp4ScalesAreExponents) {
  QuantizedLinear linear{kMxfp4, 2, 32, std::vector<int8_t>(64, 7), {0x1p-127f, 4}, {}};
  TempFolder temp;
  WriteArtifact(temp / "m", {{"l", linear}}, CompressedTensorsFormat());
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  EXPECT_EQ(checkpoint.Info("l.weight_scale").dtype, "U8");
  const auto bytes = checkpoint.Bytes("l.weight_scale");
  EXPECT_EQ(bytes[0], std::byte{0});
  EXPECT_EQ(bytes[1], std::byte{129});
  ExpectSameLinear(OpenArtifactReader(checkpoint)->Read("l"), linear);
}

TEST(CompressedTensorsLayouts, RefusesWhatServersCannotLoad) {
  const auto refused = [](const QuantScheme& scheme, const std::string& part, int64_t in = 128) {
    ExpectError(ErrorCode::kUsage, {"model.l", part}, [&] {
      CompressedTensorsFormat().CheckSupported({"model.l", scheme, 16, in});
    });
  };
  for (const QuantScheme& scheme : AllSchemes()) {
    EXPECT_NO_THROW(CompressedTensorsFormat().CheckSupported({"model.l", scheme, 16, 96}))
        << Describe(scheme);
  }
  const auto with = [](QuantScheme scheme, auto change) {
    change(scheme);
    return scheme;
  };
  refused(with(Int8(kInt8Token), [](QuantScheme& s) { s.symmetric = false; }), "asymmetric");
  refused(with(Int8(kInt8Token), [](QuantScheme& s) { s.bits = 4; }), "4 bits with rounded");
  refused(with(Int8(kInt8Token), [](QuantScheme& s) { s.group_size = 128; }), "groups of 128");
  refused(Int8(kFp8Token), "integer weights with FP8 inputs");
  refused(Int8(kInt8Token, 8), "blocks of rows");
  refused(with(Int8(kInt8Token), [](QuantScheme& s) { s.input.symmetric = false; }),
          "other than static INT8");
  refused(Int8(kInt8Token, 1, DType::kI8), "scales of type I8");
  refused(Fp8(kInt8Token), "FP8 weights with INT8 inputs");
  refused(Fp8(kFp8Groups), "inputs in groups");
  refused(Fp8(kFp8Token, 16, 16), "inputs in groups as long");
  refused(Fp8(kFp8Static, 16, 16), "static inputs");
  refused(Fp8(kNoInput, 1, 16), "groups of 16");
  refused(Fp8(kNoInput, 8), "blocks of rows");
  refused(Fp8(kFp8Groups, 16, 16), "no multiple of the block's 16", 120);
  refused(Fp8(kFp8Token, 1, kPerChannel, DType::kF8E4M3), "scales of type F8_E4M3");
  refused(kNvfp4, "no multiple of the group size 16", 120);
  refused(kMxfp4, "no multiple of the group size 32", 112);
  refused(with(kMxfp4, [](QuantScheme& s) { s.group_size = 16; }), "groups of 32");
  refused(with(kMxfp4, [](QuantScheme& s) { s.row_block = 2; }), "groups of 32");
  refused(with(kMxfp4, [](QuantScheme& s) { s.scale_dtype = DType::kF16; }), "scales of type F16");
  refused(WithInput(kNvfp4, kInt8Token), "nvfp4 weights with INT8 inputs");
  refused(WithInput(kNvfp4, kFp8Static), "nvfp4 weights with static inputs");
  refused(WithInput(kNvfp4, kMxfp4Input), "nvfp4 weights with inputs of another kind");
  refused(WithInput(kMxfp4, kMxfp8Input), "mxfp4 weights with inputs of another kind");
  refused(Int8(kNvfp4Input), "integer weights with inputs of FP4");
  refused(Fp8(kMxfp8Input), "one alone has scales that are powers of two");
  refused(Fp8(kNoInput, 1, 16, DType::kF8E8M0), "other groups than 32");
  refused(Fp8(kNoInput, 1, 32, DType::kF8E8M0), "scales of type F8_E8M0");
  refused({4, true, 32, DType::kF16, CodeType::kInt, 2}, "scales that rows share");
}

TEST(CompressedTensorsLayoutsDeathTest, ScalesOfARowBlockAreEqual) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Random random(12);
  TempFolder temp;
  QuantizedLinear tensor = RandomLinear(Fp8(kFp8Token, kAllRows), 3, 5, random);
  tensor.scales[2] *= 2;
  EXPECT_DEATH(WriteArtifact(temp / "m", {{"l", tensor}}, CompressedTensorsFormat()),
               "different scales");
  QuantizedLinear channel = RandomLinear(Fp8(kFp8Token), 3, 5, random);
  channel.scales[2] *= -1;
  EXPECT_DEATH(WriteArtifact(temp / "m", {{"l", channel}}, CompressedTensorsFormat()), "negative");
  QuantizedLinear asymmetric = RandomLinear({4, false, 32, DType::kF16}, 3, 32, random);
  asymmetric.scales[0] = -1;
  EXPECT_DEATH(WriteArtifact(temp / "m", {{"l", asymmetric}}, CompressedTensorsFormat()),
               "negative");
}

TensorEdit Floats(const std::string& name, std::vector<int64_t> shape,
                  const std::vector<float>& values) {
  return {name, "F32", std::move(shape), AsText(values)};
}
TensorEdit Bytes(const std::string& name, const std::string& dtype, std::vector<int64_t> shape,
                 const std::string& data) {
  return {name, dtype, std::move(shape), data};
}

// One module "l", broken in one place; the error and CheckTensors name the tensor.
void ExpectBad(const QuantScheme& scheme, const TensorEdit& edit,
               const std::vector<std::string>& parts) {
  Random random(13);
  TempFolder temp;
  const int64_t in = scheme.group_size > 0 ? 2 * scheme.group_size : 5;
  WriteArtifact(temp / "m", {{"m.l", RandomLinear(scheme, 3, in, random)}},
                CompressedTensorsFormat());
  {
    const Checkpoint sound = Checkpoint::Open((temp / "m").string());
    EXPECT_NO_THROW(OpenArtifactReader(sound)->Read("m.l"));
  }
  EditTensors(temp / "m", {edit});
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  const auto reader = OpenArtifactReader(checkpoint);
  std::vector<std::string> all = parts;
  all.push_back(edit.name);
  ExpectError(ErrorCode::kBadInput, all, [&] { reader->Read("m.l"); });
  EXPECT_FALSE(reader->CheckTensors().empty()) << edit.name;
}

TEST(CompressedTensorsLayouts, EveryTensorIsMissed) {
  Random random(14);
  for (const QuantScheme& scheme : {kNvfp4, kNvfp4Inputs, kMxfp4, Int8(kInt8StaticAsymmetric),
                                    Fp8(kFp8Static, kAllRows), Fp8(kNoInput)}) {
    const int64_t in = scheme.group_size > 0 ? 2 * scheme.group_size : 5;
    for (const TensorDeclaration& tensor :
         CompressedTensorsFormat().Declare({"m.l", scheme, 3, in})) {
      TempFolder temp;
      WriteArtifact(temp / "m", {{"m.l", RandomLinear(scheme, 3, in, random)}},
                    CompressedTensorsFormat());
      EditTensors(temp / "m", {{.name = tensor.name, .remove = true}});
      const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
      const auto reader = OpenArtifactReader(checkpoint);
      ExpectError(ErrorCode::kBadInput, {tensor.name}, [&] { reader->Read("m.l"); });
      const std::vector<TensorProblem> problems = reader->CheckTensors();
      ASSERT_EQ(problems.size(), 1u) << tensor.name;
      EXPECT_EQ(problems[0].kind, TensorProblem::Kind::kMissing);
      EXPECT_EQ(problems[0].tensor, tensor.name);
    }
  }
}

TEST(CompressedTensorsLayouts, WrongPlainTensors) {
  const std::string scale = "m.l.weight_scale";
  ExpectBad(Int8(kInt8Token), Floats(scale, {3}, {1, 2, 3}), {"F32 [3]", "expected F32 [3, 1]"});
  ExpectBad(Int8(kInt8Token), Bytes(scale, "U8", {3, 1}, "abc"), {"is U8", "F32, F16 or BF16"});
  ExpectBad(Int8(kInt8Token, kAllRows), Floats(scale, {1, 1}, {1}), {"expected F32 [1]"});
  ExpectBad(Int8(kInt8Token), Floats(scale, {3, 1}, {1, 0, 2}), {"scale 1 is zero"});
  ExpectBad(Fp8(kFp8Token), Floats(scale, {3, 1}, {1, -1, 2}), {"scale 1 is negative"});
  ExpectBad(Fp8(kFp8Token), Floats(scale, {3, 1}, {1, kNaN, 2}), {"scale 1 is NaN"});
  ExpectBad(Fp8(kFp8Groups, 2, 16), Floats(scale, {3, 2}, {1, 2, 3, 4, 5, 6}),
            {"F32 [3, 2]", "expected F32 [2, 2]"});
  ExpectBad(Fp8(kFp8Groups, 2, 16), Floats(scale, {2, 2}, {1, 2, kInfinity, 4}),
            {"scale 2 is infinite"});
  const std::string weight = "m.l.weight";
  ExpectBad(Int8(kInt8Token), Bytes(weight, "I8", {15}, std::string(15, 'x')),
            {"I8 [15]", "two dimensions"});
  ExpectBad(Int8(kInt8Token), Bytes(weight, "F8_E4M3", {3, 5}, std::string(15, 'x')),
            {"is F8_E4M3", "expected I8 [3, 5]"});
  ExpectBad(Fp8(kNoInput), Bytes(weight, "I8", {3, 5}, std::string(15, 'x')),
            {"is I8", "expected F8_E4M3"});
  ExpectBad(Fp8(kNoInput), Bytes(weight, "F8_E4M3", {3, 5}, std::string(11, 'x') + "\x7F" + "xxx"),
            {"element [2, 1] is NaN"});
  ExpectBad(Fp8(kNoInput), Bytes(weight, "F8_E4M3", {3, 5}, std::string(14, 'x') + "\xFF"),
            {"element [2, 4] is NaN"});
}

TEST(CompressedTensorsLayouts, WrongStaticInputs) {
  const std::string scale = "m.l.input_scale";
  ExpectBad(Fp8(kFp8Static), Floats(scale, {1}, {0}), {"zero"});
  ExpectBad(Fp8(kFp8Static), Floats(scale, {1}, {-1}), {"negative"});
  ExpectBad(Fp8(kFp8Static), Floats(scale, {1}, {kInfinity}), {"infinite"});
  ExpectBad(Fp8(kFp8Static), Floats(scale, {2}, {1, 2}), {"expected F32 [1]"});
  ExpectBad(Fp8(kFp8Static), Bytes(scale, "I32", {1}, "abcd"), {"is I32", "expected F32 [1]"});
  const std::string zero = "m.l.input_zero_point";
  ExpectBad(Int8(kInt8StaticAsymmetric), Bytes(zero, "U8", {1}, "a"), {"expected I8 [1]"});
  ExpectBad(Int8(kInt8StaticAsymmetric), Bytes(zero, "I8", {2}, "ab"), {"expected I8 [1]"});
  // Present though the scheme has none.
  ExpectBad(Int8(kInt8Static), Bytes(zero, "I8", {1}, "a"), {"not part of"});
  ExpectBad(Fp8(kFp8Token), Floats(scale, {1}, {1}), {"not part of"});
  ExpectBad(Int8(kInt8Token), Bytes("m.l.weight_zero_point", "I8", {3, 1}, "abc"), {"not part of"});
}

TEST(CompressedTensorsLayouts, WrongFp4Tensors) {
  ExpectBad(kNvfp4, Bytes("m.l.weight_packed", "I8", {3, 16}, std::string(48, 'x')), {"is I8"});
  ExpectBad(kNvfp4, Bytes("m.l.weight_packed", "U8", {3, 15}, std::string(45, 'x')),
            {"30 inputs", "group size 16"});
  const std::string scale = "m.l.weight_scale";
  ExpectBad(kNvfp4, Bytes(scale, "U8", {3, 2}, "xxxxxx"), {"is U8", "expected F8_E4M3 [3, 2]"});
  ExpectBad(kNvfp4, Bytes(scale, "F8_E4M3", {3, 2}, std::string("xxx\0xx", 6)),
            {"scale 3 is zero"});
  ExpectBad(kNvfp4, Bytes(scale, "F8_E4M3", {3, 2}, "xxx\x7Fxx"), {"scale 3 is NaN"});
  ExpectBad(kNvfp4, Bytes(scale, "F8_E4M3", {3, 2}, "xxx\x80xx"), {"scale 3 is zero"});
  ExpectBad(kNvfp4, Bytes(scale, "F8_E4M3", {3, 2}, "xxx\xB8xx"), {"scale 3 is negative"});
  ExpectBad(kMxfp4, Bytes(scale, "U8", {3, 2}, "xxxx\xFFx"), {"scale 4 is NaN"});
  ExpectBad(kMxfp4, Bytes(scale, "F8_E4M3", {3, 2}, "xxxxxx"), {"expected U8 [3, 2]"});
  const std::string global = "m.l.weight_global_scale";
  ExpectBad(kNvfp4, Floats(global, {1}, {0}), {"zero"});
  ExpectBad(kNvfp4, Floats(global, {1}, {kNaN}), {"NaN"});
  ExpectBad(kNvfp4, Floats(global, {1, 1}, {1}), {"expected F32 [1]"});
  ExpectBad(kMxfp4, Floats(global, {1}, {1}), {"not part of"});
  ExpectBad(kMxfp4, Floats("m.l.weight", {1}, {1}), {"not part of"});
  const std::string inputs = "m.l.input_global_scale";
  ExpectBad(kNvfp4Inputs, Floats(inputs, {1}, {0}), {"zero"});
  ExpectBad(kNvfp4Inputs, Floats(inputs, {1}, {kInfinity}), {"infinite"});
  ExpectBad(kNvfp4Inputs, Floats(inputs, {2}, {1, 2}), {"expected F32 [1]"});
  ExpectBad(kNvfp4, Floats(inputs, {1}, {1}), {"not part of"});
}

// A file of another tool: tensors and configuration as given.
void WriteForeign(const std::filesystem::path& folder, const std::vector<TensorEdit>& tensors,
                  const std::string& format, const nlohmann::json& weights,
                  const nlohmann::json& inputs) {
  const QuantizedLinear any{kMxfp4, 1, 32, std::vector<int8_t>(32, 7), {4}, {}};
  WriteArtifact(folder, {{"l", any}}, CompressedTensorsFormat());
  EditTensors(folder, {{.name = "l.weight_packed", .remove = true},
                       {.name = "l.weight_scale", .remove = true}});
  EditTensors(folder, tensors);
  nlohmann::json config = nlohmann::json::parse(ReadFile(folder / "config.json"));
  nlohmann::json& quantization = config["quantization_config"];
  quantization["format"] = format;
  quantization["config_groups"] = {
      {"group_0", {{"targets", {"Linear"}}, {"weights", weights}, {"input_activations", inputs}}}};
  WriteFile(folder / "config.json", config.dump());
}

const nlohmann::json kTokenInt8 = {
    {"num_bits", 8}, {"type", "int"}, {"strategy", "token"}, {"dynamic", true}};
const nlohmann::json kTokenFp8 = {
    {"num_bits", 8}, {"type", "float"}, {"strategy", "token"}, {"dynamic", true}};

// llm-compressor's W4A8: groups, and a byte for each code.
TEST(CompressedTensorsLayouts, ReadsFourBitCodesInBytes) {
  const nlohmann::json weights = {
      {"num_bits", 4}, {"type", "int"}, {"strategy", "group"}, {"group_size", 2}};
  const std::string codes = {-8, 7, 0, 1, 2, -3, 4, 5};
  const TensorEdit scales = Floats("l.weight_scale", {2, 2}, {0.5f, 1, -2, 0.25f});
  for (const auto& [inputs, type] : {std::pair(kTokenInt8, InputScheme::Type::kInt8),
                                     std::pair(kTokenFp8, InputScheme::Type::kFp8)}) {
    TempFolder temp;
    WriteForeign(temp / "m", {Bytes("l.weight", "I8", {2, 4}, codes), scales}, "int-quantized",
                 weights, inputs);
    const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
    const auto reader = OpenArtifactReader(checkpoint);
    EXPECT_THAT(reader->CheckTensors(), IsEmpty());
    const QuantizedLinear linear = reader->Read("l");
    EXPECT_EQ(linear.scheme.input.type, type);
    EXPECT_EQ(linear.codes, std::vector<int8_t>(codes.begin(), codes.end()));
    EXPECT_EQ(linear.EffectiveScale(1, 0), -2);
  }
  TempFolder temp;
  WriteForeign(temp / "m", {Bytes("l.weight", "I8", {2, 4}, {1, 2, 3, 4, 5, 6, 7, 8}), scales},
               "int-quantized", weights, kTokenInt8);
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  ExpectError(ErrorCode::kBadInput, {"l.weight", "element [1, 3] is 8", "4 bits"},
              [&] { OpenArtifactReader(checkpoint)->Read("l"); });
}

TEST(CompressedTensorsLayouts, ReadsZeroPointsOfGroupsInBytes) {
  TempFolder temp;
  WriteForeign(temp / "m",
               {Bytes("l.weight", "I8", {2, 4}, {1, 2, 3, 4, 5, 6, 7, 0}),
                Floats("l.weight_scale", {2, 2}, {1, 2, 3, 4}),
                Bytes("l.weight_zero_point", "I8", {2, 2}, {-8, 1, 2, 7})},
               "int-quantized",
               {{"num_bits", 4},
                {"type", "int"},
                {"strategy", "group"},
                {"group_size", 2},
                {"symmetric", false}},
               kTokenInt8);
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  EXPECT_EQ(OpenArtifactReader(checkpoint)->Read("l").zero_points,
            (std::vector<int8_t>{-8, 1, 2, 7}));
}

// W4AFP8 as servers take it.
TEST(CompressedTensorsLayouts, ReadsPackedCodesBesideRoundedInputs) {
  TempFolder temp;
  WriteForeign(temp / "m",
               {Bytes("l.weight_packed", "I32", {1, 1}, {0x78, 0x56, 0x34, 0x12}),
                Floats("l.weight_scale", {1, 1}, {2}),
                {"l.weight_shape", "I64", {2}, AsText(std::vector<int64_t>{1, 8})}},
               "pack-quantized", {{"num_bits", 4}, {"type", "int"}, {"strategy", "channel"}},
               kTokenFp8);
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  const auto reader = OpenArtifactReader(checkpoint);
  EXPECT_THAT(reader->CheckTensors(), IsEmpty());
  const QuantizedLinear linear = reader->Read("l");
  EXPECT_EQ(linear.codes, (std::vector<int8_t>{0, -1, -2, -3, -4, -5, -6, -7}));
  EXPECT_EQ(linear.scheme.input.type, InputScheme::Type::kFp8);
}

TEST(CompressedTensorsLayouts, ReadsMxfp8) {
  const nlohmann::json groups = {{"num_bits", 8},       {"type", "float"},
                                 {"strategy", "group"}, {"group_size", 32},
                                 {"dynamic", false},    {"scale_dtype", "torch.uint8"}};
  nlohmann::json inputs = groups;
  inputs["dynamic"] = true;
  std::string codes(64, '\x38');  // 1
  codes[33] = '\x40';             // 2
  TempFolder temp;
  WriteForeign(temp / "m",
               {Bytes("l.weight", "F8_E4M3", {1, 64}, codes),
                Bytes("l.weight_scale", "U8", {1, 2}, {127, 126})},
               "mxfp8-quantized", groups, inputs);
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  const auto reader = OpenArtifactReader(checkpoint);
  EXPECT_THAT(reader->CheckTensors(), IsEmpty());
  const QuantizedLinear linear = reader->Read("l");
  EXPECT_EQ(linear.scheme, WithInput(Fp8({}, 1, 32, DType::kF8E8M0), kMxfp8Input));
  const Tensor weight = HostTensor(DType::kF32, 1, 64);
  Dequantize(linear, weight);
  EXPECT_EQ(weight.Row<float>(0)[31], 1);
  EXPECT_EQ(weight.Row<float>(0)[32], 0.5f);
  EXPECT_EQ(weight.Row<float>(0)[33], 1);
}

// A scale for the whole tensor is one number, and a few powers of two are soon equal.
TEST(CompressedTensorsLayouts, EqualScalesAreAProblemOnlyWhereTheyMean) {
  Random random(15);
  QuantizedLinear powers = RandomLinear(kMxfp4, 3, 64, random);
  std::fill(powers.scales.begin(), powers.scales.end(), 2.0f);
  TempFolder temp;
  WriteArtifact(temp / "m",
                {{"m.a", RandomLinear(Fp8(kFp8Static, kAllRows), 3, 8, random)}, {"m.b", powers}},
                CompressedTensorsFormat());
  {
    const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
    EXPECT_THAT(OpenArtifactReader(checkpoint)->CheckTensors(), IsEmpty());
  }
  QuantizedLinear channels = RandomLinear(Fp8(kFp8Token), 3, 8, random);
  std::fill(channels.scales.begin(), channels.scales.end(), 2.0f);
  QuantizedLinear codes = RandomLinear(kNvfp4, 3, 64, random);
  std::fill(codes.codes.begin(), codes.codes.end(), int8_t{5});
  WriteArtifact(temp / "n", {{"m.a", channels}, {"m.b", codes}}, CompressedTensorsFormat());
  const Checkpoint checkpoint = Checkpoint::Open((temp / "n").string());
  const std::vector<TensorProblem> problems = OpenArtifactReader(checkpoint)->CheckTensors();
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[0].tensor, "m.a.weight_scale");
  EXPECT_EQ(problems[1].tensor, "m.b.weight_packed");
}

}  // namespace
}  // namespace quantmill::test
