// Files that are wrong: each is one error that names the tensor.
#include <limits>
#include <nlohmann/json.hpp>

#include "formats/compressed_tensors.h"
#include "formats/json.h"
#include "tests/formats/artifact_test_util.h"

namespace quantmill::test {
namespace {

using testing::ElementsAre;
using Kind = TensorProblem::Kind;

class ReaderTest : public testing::Test {
 protected:
  // Modules "a" (symmetric, [3, 64]) and "b" (asymmetric, [5, 32]), w4 g32, F16 scales.
  void SetUp() override {
    Random random(7);
    WriteArtifact(path_,
                  {{"m.a", RandomLinear({4, true, 32, DType::kF16}, 3, 64, random)},
                   {"m.b", RandomLinear({4, false, 32, DType::kF16}, 5, 32, random)}},
                  CompressedTensorsFormat());
  }

  void ExpectBad(const std::string& module, const std::vector<TensorEdit>& edits,
                 const std::vector<std::string>& parts) {
    SetUp();
    EditTensors(path_, edits);
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const auto reader = OpenArtifactReader(checkpoint);
    ExpectError(ErrorCode::kBadInput, parts, [&] { reader->Read(module); });
    EXPECT_FALSE(reader->CheckTensors().empty());
  }

  // "missing x", "constant y"... of the file after these edits.
  std::vector<std::string> Problems(const std::vector<TensorEdit>& edits) {
    SetUp();
    EditTensors(path_, edits);
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    std::vector<std::string> found;
    for (const TensorProblem& problem : OpenArtifactReader(checkpoint)->CheckTensors()) {
      EXPECT_FALSE(problem.what.empty());
      found.push_back(std::string(NameOf(problem.kind)) + " " + problem.tensor);
    }
    return found;
  }

  static TensorEdit Scales(const std::string& module, const std::vector<float>& values,
                           int64_t rows) {
    std::vector<F16> stored;
    stored.reserve(values.size());
    for (const float value : values) stored.push_back(ToF16(value));
    return {module + ".weight_scale", "F16", {rows, std::ssize(values) / rows}, AsText(stored)};
  }
  static TensorEdit Words(const std::string& name, std::vector<int64_t> shape, uint32_t word) {
    const auto count = static_cast<size_t>(shape[0] * shape[1]);
    return {name, "I32", shape, AsText(std::vector<uint32_t>(count, word))};
  }

  TempFolder temp_;
  const std::filesystem::path path_ = temp_ / "model";
};

TEST_F(ReaderTest, MissingTensors) {
  for (const std::string suffix : {"weight_packed", "weight_scale", "weight_shape"}) {
    ExpectBad("m.a", {{.name = "m.a." + suffix, .remove = true}}, {"m.a." + suffix});
    EXPECT_THAT(Problems({{.name = "m.a." + suffix, .remove = true}}),
                ElementsAre("missing m.a." + suffix));
  }
  ExpectBad("m.b", {{.name = "m.b.weight_zero_point", .remove = true}},
            {"no tensor 'm.b.weight_zero_point'"});
}

TEST_F(ReaderTest, WrongShapesAndTypes) {
  ExpectBad("m.a", {Words("m.a.weight_packed", {3, 7}, 1)},
            {"model.safetensors: tensor 'm.a.weight_packed' (byte offset", "I32 [3, 7]",
             "expected I32 [3, 8]"});
  ExpectBad("m.a", {Words("m.a.weight_packed", {8, 3}, 1)}, {"I32 [8, 3]"});
  ExpectBad("m.a", {{"m.a.weight_packed", "U8", {3, 32}, std::string(96, 'x')}}, {"is U8 [3, 32]"});
  ExpectBad("m.a", {Scales("m.a", {1, 2, 3}, 3)}, {"F16 [3, 1]", "expected F16 [3, 2]"});
  ExpectBad("m.a", {{"m.a.weight_scale", "I16", {3, 2}, std::string(12, 'x')}},
            {"is I16; scales must be"});
  ExpectBad("m.b", {Words("m.b.weight_zero_point", {5, 1}, 1)}, {"expected I32 [1, 1]"});
  const auto shape = [](const std::vector<int64_t>& values) {
    return TensorEdit{"m.a.weight_shape", "I64", {std::ssize(values)}, AsText(values)};
  };
  ExpectBad("m.a", {shape({3, 64, 1})}, {"I64 [3]", "expected I64 [2]"});
  ExpectBad("m.a", {shape({3, 96})}, {"expected F16 [3, 3]"});
  ExpectBad("m.a", {shape({64, 3})}, {"expected F16 [64, 1]"});
  ExpectBad("m.a", {shape({0, 64})}, {"impossible shape [0, 64]"});
  ExpectBad("m.a", {shape({3, -1})}, {"impossible shape"});
  ExpectBad("m.a", {shape({INT64_MAX, INT64_MAX})}, {"impossible shape"});
}

TEST_F(ReaderTest, BadScales) {
  const auto bad = [&](float value, const std::string& part) {
    ExpectBad("m.a", {Scales("m.a", {1, 2, 3, value, 5, 6}, 3)},
              {"tensor 'm.a.weight_scale'", "scale 3 is " + part});
  };
  bad(0, "zero");
  bad(-0.0f, "zero");
  bad(std::numeric_limits<float>::quiet_NaN(), "NaN");
  bad(std::numeric_limits<float>::infinity(), "infinite");
}

// Zero points and scales below zero would be two ways to say one thing.
TEST_F(ReaderTest, NegativeScalesAreForSymmetricIntegers) {
  ExpectBad("m.b", {Scales("m.b", {1, 2, 3, -1, 5}, 5)},
            {"tensor 'm.b.weight_scale'", "scale 3 is negative"});
  SetUp();
  EditTensors(path_, {Scales("m.a", {1, 2, 3, -1, 5, 6}, 3)});
  const Checkpoint checkpoint = Checkpoint::Open(path_.string());
  EXPECT_EQ(OpenArtifactReader(checkpoint)->Read("m.a").scales[3], -1);
}

TEST_F(ReaderTest, PaddingBits) {
  // Five zero points of four bits leave twelve bits of the word.
  ExpectBad("m.b", {Words("m.b.weight_zero_point", {1, 1}, 0x00100000u)},
            {"'m.b.weight_zero_point'", "column 0", "past its last zero point"});
  Random random(8);
  const std::filesystem::path path = temp_ / "odd";
  WriteArtifact(path, {{"l", RandomLinear({4, true, -1, DType::kF16}, 2, 9, random)}},
                CompressedTensorsFormat());
  EditTensors(path, {Words("l.weight_packed", {2, 2}, 0x10u)});
  const Checkpoint checkpoint = Checkpoint::Open(path.string());
  ExpectError(ErrorCode::kBadInput, {"'l.weight_packed'", "row 0", "past its last code"},
              [&] { OpenArtifactReader(checkpoint)->Read("l"); });
}

TEST_F(ReaderTest, OldPackingOfOddBits) {
  Random random(9);
  const std::filesystem::path path = temp_ / "odd";
  WriteArtifact(path, {{"l", RandomLinear({3, true, 32, DType::kF16}, 2, 64, random)}},
                CompressedTensorsFormat());
  EditTensors(path, {Words("l.weight_packed", {2, 7}, 1)});  // 10 codes a word, not a bitstream
  const Checkpoint checkpoint = Checkpoint::Open(path.string());
  ExpectError(ErrorCode::kBadInput, {"'l.weight_packed'", "old library"},
              [&] { OpenArtifactReader(checkpoint)->Read("l"); });
}

TEST_F(ReaderTest, TensorsTooMany) {
  ExpectBad("m.a", {Words("m.a.weight_zero_point", {1, 2}, 1)},
            {"'m.a.weight_zero_point'", "declared w4a16 g32 symmetric"});
  ExpectBad("m.a", {{"m.a.weight_g_idx", "I32", {64}, std::string(256, '\0')}},
            {"'m.a.weight_g_idx'", "declared w4a16 g32 symmetric"});
  EXPECT_THAT(Problems({{"m.a.weight", "F16", {1, 2}, "abcd"}}), ElementsAre("extra m.a.weight"));
  EXPECT_THAT(Problems({{"m.a.input_scale", "F32", {1}, "abcd"}}),
              ElementsAre("extra m.a.input_scale"));
}

// A file of actorder "group", which declares an index for each module: both modules have one.
class ActOrderTest : public ReaderTest {
 protected:
  void Declare() {
    nlohmann::json config = ReadJsonFile(path_ / "config.json");
    for (auto& [name, group] : config["quantization_config"]["config_groups"].items()) {
      group["weights"]["actorder"] = "group";
    }
    WriteFile(path_ / "config.json", config.dump());
  }
  static TensorEdit Index(const std::string& module, const std::vector<int32_t>& group_of) {
    return {module + ".weight_g_idx", "I32", {std::ssize(group_of)}, AsText(group_of)};
  }
};

TEST_F(ActOrderTest, InputsHaveTheScalesOfTheirGroups) {
  std::vector<int32_t> index(64);
  for (int32_t k = 0; k < 64; ++k) index[static_cast<size_t>(k)] = k % 2;
  const QuantizedLinear plain = OpenArtifactReader(Checkpoint::Open(path_.string()))->Read("m.a");
  EditTensors(path_, {Index("m.a", index), Index("m.b", std::vector<int32_t>(32, 0))});
  Declare();
  const Checkpoint checkpoint = Checkpoint::Open(path_.string());
  const auto reader = OpenArtifactReader(checkpoint);
  EXPECT_EQ(reader->SchemeOf("m.a")->group_size, 1);
  EXPECT_EQ(reader->SchemeOf("m.b")->group_size, 32);  // in order after all
  const QuantizedLinear read = reader->Read("m.a");
  EXPECT_EQ(read.codes, plain.codes);
  for (size_t o = 0; o < 3; ++o) {
    for (size_t k = 0; k < 64; ++k) {
      ASSERT_EQ(read.scales[o * 64 + k], plain.scales[o * 2 + k % 2]) << o << " " << k;
    }
  }
  EXPECT_THAT(reader->CheckTensors(), testing::IsEmpty());
}

TEST_F(ActOrderTest, BadIndicesAreNamed) {
  const std::vector<int32_t> fine(32, 0);
  const auto expect_bad = [&](const std::vector<TensorEdit>& edits, const std::string& part) {
    ReaderTest::SetUp();
    EditTensors(path_, edits);
    Declare();
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const auto reader = OpenArtifactReader(checkpoint);
    ExpectError(ErrorCode::kBadInput, {"m.a.weight_g_idx", part}, [&] { reader->Read("m.a"); });
    ASSERT_EQ(reader->CheckTensors().size(), 1U);
    EXPECT_EQ(reader->CheckTensors()[0].tensor,
              part == "no tensor" ? "m.a.weight_g_idx" : "m.a.weight_packed");
  };
  expect_bad({Index("m.b", fine)}, "no tensor");
  expect_bad({Index("m.b", fine), Index("m.a", fine)}, "[32]");
  expect_bad({Index("m.b", fine), Index("m.a", std::vector<int32_t>(64, 2))}, "of group 2 of 2");
  expect_bad({Index("m.b", fine), Index("m.a", std::vector<int32_t>(64, -1))}, "of group -1");
}

TEST_F(ReaderTest, ConstantAndNonFinite) {
  EXPECT_THAT(Problems({}), ElementsAre());
  EXPECT_THAT(Problems({Words("m.a.weight_packed", {3, 8}, 0x88888888u)}),
              ElementsAre("constant m.a.weight_packed"));
  EXPECT_THAT(Problems({Scales("m.a", {1, 1, 1, 1, 1, 1}, 3)}),
              ElementsAre("constant m.a.weight_scale"));
  const std::vector<F16> same(6, ToF16(2));
  EXPECT_THAT(Problems({{"embed.weight", "F16", {2, 3}, AsText(same)}}),
              ElementsAre("constant embed.weight"));
  EXPECT_THAT(Problems({{"norm.weight", "F16", {6}, AsText(same)}}), ElementsAre());
  std::vector<BF16> bad(6, ToBF16(2));
  bad[4] = ToBF16(std::numeric_limits<float>::quiet_NaN());
  EXPECT_THAT(Problems({{"norm.weight", "BF16", {6}, AsText(bad)}}),
              ElementsAre("not finite norm.weight"));
}

TEST_F(ReaderTest, ConfigurationAndTensorsDisagree) {
  const auto read = [&](const std::string& module) {
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    OpenArtifactReader(checkpoint)->SchemeOf(module);
  };
  auto config = ReadJsonFile(path_ / "config.json");
  auto& quantization = config["quantization_config"];
  quantization["ignore"] = {"re:.*a$"};
  WriteFile(path_ / "config.json", config.dump());
  ExpectError(ErrorCode::kBadInput, {"config.json", "'m.a' is quantized", "ignored"},
              [&] { read("m.a"); });
  EXPECT_NO_THROW(read("m.b"));
  quantization["ignore"] = nlohmann::json::array();
  quantization["config_groups"]["group_0"]["targets"] = {"Linear"};
  WriteFile(path_ / "config.json", config.dump());
  EditTensors(path_, {{"m.c.weight", "F16", {1, 2}, "abcd"}});
  ExpectError(ErrorCode::kBadInput, {"'m.c' is a target", "left dense"}, [&] { read("m.c"); });
  EXPECT_NO_THROW(read("m.absent"));
}

TEST_F(ReaderTest, ExactTargetsMustBeThere) {
  auto config = ReadJsonFile(path_ / "config.json");
  config["quantization_config"]["config_groups"]["group_0"]["targets"].push_back("m.gone");
  WriteFile(path_ / "config.json", config.dump());
  const Checkpoint checkpoint = Checkpoint::Open(path_.string());
  const std::vector<TensorProblem> problems = OpenArtifactReader(checkpoint)->CheckTensors();
  ASSERT_EQ(problems.size(), 1u);
  EXPECT_EQ(problems[0].kind, Kind::kMissing);
  EXPECT_EQ(problems[0].tensor, "m.gone.weight_packed");
}

TEST_F(ReaderTest, UnknownMethods) {
  auto config = ReadJsonFile(path_ / "config.json");
  const auto open = [&](const nlohmann::json& method) {
    config["quantization_config"]["quant_method"] = method;
    WriteFile(path_ / "config.json", config.dump());
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    OpenArtifactReader(checkpoint);
  };
  ExpectError(ErrorCode::kBadInput, {"config.json", "quant_method 'bitsandbytes'"},
              [&] { open("bitsandbytes"); });
  ExpectError(ErrorCode::kBadInput, {"no quant_method"}, [&] { open(nullptr); });
}

}  // namespace
}  // namespace quantmill::test
