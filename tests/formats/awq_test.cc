// AWQ files: bytes worked out by hand, round trips, and what is refused.
#include "formats/awq.h"

#include <nlohmann/json.hpp>

#include "formats/json.h"
#include "tests/formats/artifact_test_util.h"

namespace quantmill::test {
namespace {

using testing::IsEmpty;

QuantScheme Scheme(int64_t group) { return {4, false, group, DType::kF16}; }

class AwqFormatTest : public testing::Test {
 protected:
  void SetConfig(const nlohmann::json& change) {
    nlohmann::json config = ReadJsonFile(path_ / "config.json");
    config["quantization_config"].update(change);
    WriteFile(path_ / "config.json", config.dump());
  }

  TempFolder temp_;
  const std::filesystem::path path_ = temp_ / "model";
};

// formats.md section 3.1: outputs 0..7 hold 0..7.
TEST_F(AwqFormatTest, BytesAreThoseOfTheFormat) {
  Random random(1);
  QuantizedLinear linear = RandomLinear(Scheme(32), 8, 32, random);
  for (size_t n = 0; n < 8; ++n) {
    linear.codes[n * 32] = static_cast<int8_t>(static_cast<int>(n) - 8);
    linear.zero_points[n] = static_cast<int8_t>(7 - static_cast<int>(n));  // 15 .. 8
  }
  WriteArtifact(path_, {{"m.a", linear}}, AwqFormat());
  const Checkpoint checkpoint = Checkpoint::Open(path_.string());
  EXPECT_EQ(checkpoint.Info("m.a.qweight").shape, (std::vector<int64_t>{32, 1}));
  uint32_t word = 0;
  std::memcpy(&word, checkpoint.Bytes("m.a.qweight").data(), 4);
  EXPECT_EQ(word, 0x75316420U);
  EXPECT_EQ(checkpoint.Info("m.a.qzeros").shape, (std::vector<int64_t>{1, 1}));
  std::memcpy(&word, checkpoint.Bytes("m.a.qzeros").data(), 4);
  EXPECT_EQ(word, 0x8ACE9BDFU);  // 15 - field of the above, no "less one"
  EXPECT_EQ(checkpoint.Info("m.a.scales").shape, (std::vector<int64_t>{1, 8}));
  EXPECT_FALSE(checkpoint.Has("m.a.g_idx"));
}

TEST_F(AwqFormatTest, RoundTrips) {
  Random random(2);
  for (const int64_t group : {QuantScheme::kPerChannel, int64_t{32}, int64_t{48}}) {
    NamedLinears linears;
    for (int i = 0; i < 4; ++i) {
      linears.emplace_back("model.l" + std::to_string(i),
                           RandomLinear(Scheme(group), 8 * random.Int(1, 9), 96, random));
    }
    WriteArtifact(path_, linears, AwqFormat());
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const auto reader = OpenArtifactReader(checkpoint);
    EXPECT_EQ(reader->format(), "awq");
    ASSERT_EQ(reader->modules().size(), linears.size());
    for (const auto& [name, want] : linears) ExpectSameLinear(reader->Read(name), want);
    EXPECT_THAT(reader->CheckTensors(), IsEmpty());
  }
}

TEST_F(AwqFormatTest, RefusesWhatTheFormatCannotHold) {
  const auto refused = [](const std::string& name, const QuantScheme& scheme, int64_t out,
                          int64_t in) {
    ExpectError(ErrorCode::kUsage, {name, "awq"}, [&] {
      AwqFormat().CheckSupported({name, scheme, out, in});
    });
  };
  refused("m.a", {4, true, 32, DType::kF16}, 32, 64);
  refused("m.a", {8, false, 32, DType::kF16}, 32, 64);
  refused("m.a", {4, false, 32, DType::kBF16}, 32, 64);
  refused("m.a", Scheme(32), 12, 64);
  refused("m.a", Scheme(48), 32, 64);
  refused("lm_head", Scheme(32), 32, 64);
  ExpectError(ErrorCode::kUsage, {"m.b", "one scheme"}, [] {
    AwqFormat().CheckTogether(
        std::vector<QuantizedModule>{{"m.a", Scheme(32), 8, 64}, {"m.b", Scheme(64), 8, 64}});
  });
  ExpectError(ErrorCode::kUsage, {"--kv-scheme"}, [] {
    AwqFormat().CheckSupportedKv({KvScheme::Type::kFp8, false});
  });
}

TEST_F(AwqFormatTest, ConfigurationsThatCannotBeRead) {
  Random random(3);
  WriteArtifact(path_, {{"m.a", RandomLinear(Scheme(32), 8, 32, random)}}, AwqFormat());
  const std::string good = ReadFile(path_ / "config.json");
  for (const auto& [change, part] :
       std::vector<std::pair<nlohmann::json, std::string>>{{{{"version", "marlin"}}, "marlin"},
                                                           {{{"bits", 8}}, "bits"},
                                                           {{{"zero_point", false}}, "zero_point"},
                                                           {{{"group_size", 0}}, "group_size"}}) {
    WriteFile(path_ / "config.json", good);
    SetConfig(change);
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    ExpectError(ErrorCode::kBadInput, {"config.json", part},
                [&] { OpenArtifactReader(checkpoint); });
  }
}

TEST_F(AwqFormatTest, DefectsNameTheirTensor) {
  Random random(4);
  const auto expect_bad = [&](const TensorEdit& edit, const std::vector<std::string>& parts) {
    WriteArtifact(path_, {{"m.a", RandomLinear(Scheme(32), 8, 64, random)}}, AwqFormat());
    EditTensors(path_, {edit});
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const auto reader = OpenArtifactReader(checkpoint);
    ExpectError(ErrorCode::kBadInput, parts, [&] { reader->Read("m.a"); });
    EXPECT_THAT(reader->CheckTensors(), testing::Not(IsEmpty()));
  };
  expect_bad({.name = "m.a.qzeros", .remove = true}, {"m.a.qzeros"});
  expect_bad({"m.a.scales", "F16", {2, 8}, AsText(std::vector<F16>(16, ToF16(-1)))},
             {"m.a.scales"});
  expect_bad({"m.a.qzeros", "I32", {1, 1}, std::string(4, 'x')}, {"m.a.qzeros", "[1, 1]"});
  expect_bad({"m.a.qweight", "F16", {64, 1}, std::string(128, 'x')}, {"m.a.qweight", "F16"});
}

}  // namespace
}  // namespace quantmill::test
