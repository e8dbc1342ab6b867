// FP8 files: bytes worked out by hand, round trips, and what is refused.
#include "formats/fp8.h"

#include <nlohmann/json.hpp>

#include "formats/json.h"
#include "tests/formats/artifact_test_util.h"

namespace quantmill::test {
namespace {

using testing::IsEmpty;

constexpr int64_t kRow = QuantScheme::kPerChannel;

QuantScheme Scheme(int64_t rows, int64_t group, bool dynamic = true) {
  QuantScheme scheme{8, true, group, DType::kF32, CodeType::kFp8, rows};
  scheme.input.type = InputScheme::Type::kFp8;
  scheme.input.dynamic = dynamic;
  if (group != kRow) scheme.input.group_size = group;
  return scheme;
}
QuantScheme PerTensor(bool dynamic = true) { return Scheme(QuantScheme::kAllRows, kRow, dynamic); }

class Fp8FormatTest : public testing::Test {
 protected:
  nlohmann::json Config() const {
    return ReadJsonFile(path_ / "config.json").at("quantization_config");
  }
  static std::string BytesOf(const Checkpoint& checkpoint, const std::string& tensor) {
    const std::span<const std::byte> bytes = checkpoint.Bytes(tensor);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }
  void Write(const QuantizedLinear& linear) {
    WriteArtifact(path_, {{"m.a", linear}}, Fp8Format());
  }

  TempFolder temp_;
  const std::filesystem::path path_ = temp_ / "model";
};

// formats.md section 5.
TEST_F(Fp8FormatTest, BytesAreThoseOfTheFormat) {
  QuantizedLinear linear;
  linear.scheme = PerTensor(false);
  linear.out = 2;
  linear.in = 3;
  // 1, -448, 0, the smallest, 1.125, 2 as E4M3 (formats.md section 4.2).
  linear.codes = {0x38, static_cast<int8_t>(0xFE), 0, 1, 0x39, 0x40};
  linear.scales = {0.5f, 0.5f};
  linear.input_scale = 0.25f;
  Write(linear);
  const Checkpoint checkpoint = Checkpoint::Open(path_.string());
  EXPECT_EQ(checkpoint.Info("m.a.weight").dtype, "F8_E4M3");
  EXPECT_EQ(checkpoint.Info("m.a.weight").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(BytesOf(checkpoint, "m.a.weight"), std::string("\x38\xFE\x00\x01\x39\x40", 6));
  EXPECT_EQ(BytesOf(checkpoint, "m.a.weight_scale"), std::string("\0\0\0\x3F", 4));
  EXPECT_EQ(BytesOf(checkpoint, "m.a.input_scale"), std::string("\0\0\x80\x3E", 4));
  const nlohmann::json config = Config();
  EXPECT_EQ(config.at("activation_scheme"), "static");
  EXPECT_FALSE(config.contains("weight_block_size"));
  const Tensor weight = HostTensor(DType::kF32, 2, 3);
  Dequantize(OpenArtifactReader(checkpoint)->Read("m.a"), weight);
  EXPECT_EQ(weight.Row<float>(0)[0], 0.5f);
  EXPECT_EQ(weight.Row<float>(0)[1], -224.0f);
  EXPECT_EQ(weight.Row<float>(1)[0], 0.5f / 512);
  EXPECT_EQ(weight.Row<float>(1)[1], 0.5625f);
}

TEST_F(Fp8FormatTest, BlocksNameTheirScalesInversesAndMultiply) {
  Random random(1);
  QuantizedLinear linear = RandomLinear(Scheme(128, 128), 256, 384, random);
  Write(linear);
  const Checkpoint checkpoint = Checkpoint::Open(path_.string());
  EXPECT_EQ(checkpoint.Info("m.a.weight_scale_inv").shape, (std::vector<int64_t>{2, 3}));
  EXPECT_FALSE(checkpoint.Has("m.a.weight_scale"));
  EXPECT_EQ(Config().at("weight_block_size"), nlohmann::json({128, 128}));
  const QuantizedLinear read = OpenArtifactReader(checkpoint)->Read("m.a");
  EXPECT_EQ(read.EffectiveScale(200, 2), linear.EffectiveScale(200, 2));
}

TEST_F(Fp8FormatTest, RoundTrips) {
  Random random(2);
  for (const QuantScheme& scheme :
       {PerTensor(), PerTensor(false), Scheme(128, 128), Scheme(64, 32)}) {
    NamedLinears linears;
    for (int i = 0; i < 3; ++i) {
      linears.emplace_back("model.l" + std::to_string(i),
                           RandomLinear(scheme, 128 * random.Int(1, 3), 256, random));
    }
    WriteArtifact(path_, linears, Fp8Format());
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const auto reader = OpenArtifactReader(checkpoint);
    EXPECT_EQ(reader->format(), "fp8");
    ASSERT_EQ(reader->modules().size(), linears.size());
    for (const auto& [name, want] : linears) ExpectSameLinear(reader->Read(name), want);
    EXPECT_THAT(reader->CheckTensors(), IsEmpty());
    EXPECT_FALSE(reader->SchemeOf("model.norm").has_value());
  }
}

// Others' files: scalars without a shape, blocks that the edge cuts off.
TEST_F(Fp8FormatTest, ReadsScalarsAndPartialBlocks) {
  Random random(3);
  Write(RandomLinear(PerTensor(false), 4, 6, random));
  EditTensors(path_, {{"m.a.weight_scale", "F32", {}, AsText(std::vector<float>{2})},
                      {"m.a.input_scale", "F32", {}, AsText(std::vector<float>{3})}});
  {
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const QuantizedLinear linear = OpenArtifactReader(checkpoint)->Read("m.a");
    EXPECT_EQ(linear.scales, std::vector<float>(4, 2.0f));
    EXPECT_EQ(linear.input_scale, 3.0f);
  }
  std::filesystem::remove_all(path_);
  Write(RandomLinear(Scheme(64, 64), 128, 128, random));
  EditTensors(path_, {{"m.a.weight", "F8_E4M3", {100, 70}, std::string(7000, '\x38')}});
  const Checkpoint checkpoint = Checkpoint::Open(path_.string());
  const QuantizedLinear linear = OpenArtifactReader(checkpoint)->Read("m.a");
  EXPECT_EQ(linear.out, 100);
  EXPECT_EQ(linear.groups(), 2);
}

TEST_F(Fp8FormatTest, RefusesWhatTheFormatCannotHold) {
  const auto refused = [](const std::string& name, const QuantScheme& scheme, int64_t out,
                          int64_t in, const std::string& why) {
    ExpectError(ErrorCode::kUsage, {name, "fp8: ", why}, [&] {
      Fp8Format().CheckSupported({name, scheme, out, in});
    });
  };
  refused("m.a", {4, true, 32, DType::kF16}, 32, 64, "holds FP8 weights");
  refused("m.a", Scheme(1, kRow), 32, 64, "fp8-tensor");
  refused("m.a", Scheme(128, 128), 128, 192, "192 inputs");
  refused("m.a", Scheme(128, 128), 192, 128, "192 outputs");
  refused("lm_head", PerTensor(), 32, 64, "lm_head");
  QuantScheme half = PerTensor();
  half.scale_dtype = DType::kF16;
  refused("m.a", half, 32, 64, "F32");
  ExpectError(ErrorCode::kUsage, {"m.b", "one scheme"}, [] {
    Fp8Format().CheckTogether(std::vector<QuantizedModule>{{"m.a", PerTensor(), 8, 64},
                                                           {"m.b", PerTensor(false), 8, 64}});
  });
  ExpectError(ErrorCode::kUsage, {"--kv-scheme"}, [] {
    Fp8Format().CheckSupportedKv({KvScheme::Type::kFp8, false});
  });
}

TEST_F(Fp8FormatTest, ConfigurationsThatCannotBeRead) {
  Random random(4);
  Write(RandomLinear(Scheme(64, 64), 64, 64, random));
  const nlohmann::json good = ReadJsonFile(path_ / "config.json");
  for (const auto& [change, part] : std::vector<std::pair<nlohmann::json, std::string>>{
           {{{"fmt", "e5m2"}}, "e5m2"},
           {{{"activation_scheme", "static"}}, "activation_scheme"},
           {{{"activation_scheme", "some"}}, "some"},
           {{{"weight_block_size", {128}}}, "weight_block_size"},
           {{{"weight_block_size", {128, 0}}}, "weight_block_size"}}) {
    nlohmann::json config = good;
    config["quantization_config"].update(change);
    WriteFile(path_ / "config.json", config.dump());
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    ExpectError(ErrorCode::kBadInput, {"config.json", part},
                [&] { OpenArtifactReader(checkpoint); });
  }
}

TEST_F(Fp8FormatTest, DefectsNameTheirTensor) {
  Random random(5);
  const auto expect_bad = [&](const TensorEdit& edit, const std::vector<std::string>& parts) {
    Write(RandomLinear(Scheme(64, 64), 64, 128, random));
    EditTensors(path_, {edit});
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const auto reader = OpenArtifactReader(checkpoint);
    ExpectError(ErrorCode::kBadInput, parts, [&] { reader->Read("m.a"); });
    EXPECT_THAT(reader->CheckTensors(), testing::Not(IsEmpty()));
  };
  expect_bad({.name = "m.a.weight_scale_inv", .remove = true}, {"m.a.weight_scale_inv"});
  expect_bad({"m.a.weight_scale_inv", "F32", {1, 2}, AsText(std::vector<float>{1, -1})},
             {"m.a.weight_scale_inv"});
  expect_bad({"m.a.weight_scale_inv", "F32", {2}, AsText(std::vector<float>{1, 1})},
             {"m.a.weight_scale_inv", "[1, 2]"});
  expect_bad({"m.a.weight", "F8_E4M3", {64, 128}, std::string(8192, '\x7F')},
             {"m.a.weight", "[0, 0] is NaN"});
}

}  // namespace
}  // namespace quantmill::test
