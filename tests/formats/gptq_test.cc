// GPTQ files: bytes worked out by hand, round trips, and files of other tools.
#include "formats/gptq.h"

#include <nlohmann/json.hpp>

#include "formats/compressed_tensors.h"
#include "formats/json.h"
#include "tests/formats/artifact_test_util.h"

namespace quantmill::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

QuantScheme Scheme(int bits, bool symmetric, int64_t group) {
  return {bits, symmetric, group, DType::kF16};
}

// Zero points stay above the smallest code, which version 1 cannot hold.
QuantizedLinear GptqLinear(const QuantScheme& scheme, int64_t out, int64_t in, Random& random) {
  QuantizedLinear linear = RandomLinear(scheme, out, in, random);
  for (int8_t& zero : linear.zero_points) {
    zero = std::max(zero, static_cast<int8_t>(scheme.min_code() + 1));
  }
  return linear;
}

std::vector<uint32_t> Words(const Checkpoint& checkpoint, const std::string& tensor) {
  const std::span<const std::byte> bytes = checkpoint.Bytes(tensor);
  std::vector<uint32_t> words(bytes.size() / 4);
  std::memcpy(words.data(), bytes.data(), bytes.size());
  return words;
}

class GptqTest : public testing::Test {
 protected:
  void Write(const NamedLinears& linears, const ArtifactWriterFormat& format = GptqFormat()) {
    WriteArtifact(path_, linears, format);
  }
  Checkpoint Open() const { return Checkpoint::Open(path_.string()); }
  void SetConfig(const std::function<void(nlohmann::json&)>& change) {
    nlohmann::json config = ReadJsonFile(path_ / "config.json");
    change(config["quantization_config"]);
    WriteFile(path_ / "config.json", config.dump());
  }

  TempFolder temp_;
  const std::filesystem::path path_ = temp_ / "model";
};

// formats.md sections 2.1 and 2.2: eight inputs 0..7 of one output; codes k mod 8 of 3 bits.
TEST_F(GptqTest, BytesAreThoseOfTheFormat) {
  Random random(1);
  QuantizedLinear four = RandomLinear(Scheme(4, true, 32), 32, 32, random);
  for (int64_t k = 0; k < 32; ++k)
    four.codes[static_cast<size_t>(k)] = static_cast<int8_t>(k % 8 - 8);
  QuantizedLinear three = RandomLinear(Scheme(3, true, 32), 32, 32, random);
  for (int64_t k = 0; k < 32; ++k)
    three.codes[static_cast<size_t>(k)] = static_cast<int8_t>(k % 8 - 4);
  for (const bool version_2 : {false, true}) {
    Write({{"m.four", four}, {"m.three", three}}, version_2 ? GptqV2Format() : GptqFormat());
    const Checkpoint checkpoint = Open();
    EXPECT_EQ(checkpoint.Info("m.four.qweight").shape, (std::vector<int64_t>{4, 32}));
    EXPECT_EQ(Words(checkpoint, "m.four.qweight")[0], 0x76543210U);
    EXPECT_EQ(checkpoint.Info("m.three.qweight").shape, (std::vector<int64_t>{3, 32}));
    const std::vector<uint32_t> words = Words(checkpoint, "m.three.qweight");
    EXPECT_EQ(words[0], 0x88FAC688U);
    EXPECT_EQ(words[32], 0xC688FAC6U);
    EXPECT_EQ(words[64], 0xFAC688FAU);
    EXPECT_EQ(checkpoint.Info("m.four.qzeros").shape, (std::vector<int64_t>{1, 4}));
    EXPECT_EQ(Words(checkpoint, "m.four.qzeros")[0], version_2 ? 0x88888888U : 0x77777777U);
    EXPECT_EQ(checkpoint.Info("m.four.scales").dtype, "F16");
    EXPECT_THAT(Words(checkpoint, "m.four.g_idx"), testing::Each(0U));
  }
}

TEST_F(GptqTest, GroupIndicesCountGroups) {
  Random random(2);
  Write({{"m.a", RandomLinear(Scheme(4, true, 32), 32, 64, random)}});
  const std::vector<uint32_t> index = Words(Open(), "m.a.g_idx");
  EXPECT_EQ(index[31], 0U);
  EXPECT_EQ(index[32], 1U);
  EXPECT_EQ(index[63], 1U);
}

// The identity of formats.md section 4.2: packed words and zero points are transposes of ours.
TEST_F(GptqTest, WordsAreTheTransposeOfCompressedTensors) {
  Random random(3);
  for (const int bits : {4, 8}) {
    const QuantizedLinear linear = GptqLinear(Scheme(bits, false, 32), 64, 96, random);
    Write({{"m.a", linear}}, GptqV2Format());
    WriteArtifact(temp_ / "ct", {{"m.a", linear}}, CompressedTensorsFormat());
    const Checkpoint gptq = Open();
    const Checkpoint ct = Checkpoint::Open((temp_ / "ct").string());
    for (const auto& [ours, theirs] :
         {std::pair{"m.a.qweight", "m.a.weight_packed"}, {"m.a.qzeros", "m.a.weight_zero_point"}}) {
      const std::vector<uint32_t> a = Words(gptq, ours);
      const std::vector<uint32_t> b = Words(ct, theirs);
      const int64_t rows = gptq.Info(ours).shape[0];
      const int64_t cols = gptq.Info(ours).shape[1];
      ASSERT_EQ(a.size(), b.size());
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < cols; ++c) {
          ASSERT_EQ(a[static_cast<size_t>(r * cols + c)], b[static_cast<size_t>(c * rows + r)]);
        }
      }
    }
  }
}

TEST_F(GptqTest, RoundTripsEverySchemeInBothVersions) {
  Random random(4);
  for (const bool version_2 : {false, true}) {
    NamedLinears linears;
    for (const int bits : {2, 3, 4, 8}) {
      for (const bool symmetric : {true, false}) {
        for (const int64_t group : {QuantScheme::kPerChannel, int64_t{32}, int64_t{64}}) {
          linears.emplace_back("model.l" + std::to_string(linears.size()),
                               GptqLinear(Scheme(bits, symmetric, group), 32 * random.Int(1, 3),
                                          64 * random.Int(1, 3), random));
        }
      }
    }
    Write(linears, version_2 ? GptqV2Format() : GptqFormat());
    const Checkpoint checkpoint = Open();
    const auto reader = OpenArtifactReader(checkpoint);
    EXPECT_EQ(reader->format(), version_2 ? "gptq_v2" : "gptq");
    ASSERT_EQ(reader->modules().size(), linears.size());
    for (const auto& [name, want] : linears) {
      ExpectSameLinear(reader->Read(name), want);
      EXPECT_EQ(reader->TensorsOf(name).size(), 4u);
    }
    EXPECT_THAT(reader->CheckTensors(), IsEmpty());
    EXPECT_EQ(reader->SchemeOf("lm_head"), std::nullopt);
  }
}

TEST_F(GptqTest, ConfigurationNamesWhatDiffers) {
  Random random(5);
  const std::vector<QuantizedModule> modules = {{"m.a", Scheme(4, true, 64), 32, 64},
                                                {"m.b", Scheme(4, true, 64), 32, 64},
                                                {"m.c", Scheme(8, true, -1), 32, 64}};
  const std::vector<std::string> dense = {"m.d", "lm_head"};
  const nlohmann::json config = GptqFormat().QuantizationConfig(modules, dense, {});
  EXPECT_EQ(config["bits"], 4);
  EXPECT_EQ(config["group_size"], 64);
  EXPECT_EQ(config["sym"], true);
  EXPECT_EQ(config["desc_act"], false);
  EXPECT_EQ(config["checkpoint_format"], "gptq");
  EXPECT_EQ(
      config["dynamic"],
      ParseJson(R"({"+:m\\.c$":{"bits":8,"group_size":-1,"sym":true},"-:m\\.d$":{}})", "test"));
  EXPECT_EQ(GptqV2Format().QuantizationConfig(modules, {}, {})["checkpoint_format"], "gptq_v2");
}

TEST_F(GptqTest, RefusesWhatTheFormatCannotHold) {
  const auto refused = [](const QuantScheme& scheme, int64_t out, int64_t in) {
    ExpectError(ErrorCode::kUsage, {"m.a", "gptq"}, [&] {
      GptqFormat().CheckSupported({"m.a", scheme, out, in});
    });
  };
  refused(Scheme(5, true, 32), 32, 64);
  refused(Scheme(4, true, 32), 33, 64);
  refused(Scheme(4, true, 24), 32, 72);
  refused(Scheme(4, true, 48), 32, 64);
  refused({4, true, 32, DType::kBF16}, 32, 64);
  QuantScheme rounded = Scheme(8, true, -1);
  rounded.input.type = InputScheme::Type::kInt8;
  refused(rounded, 32, 64);
  ExpectError(ErrorCode::kUsage, {"--kv-scheme"}, [] {
    GptqFormat().CheckSupportedKv({KvScheme::Type::kFp8, false});
  });
  GptqFormat().CheckSupported({"m.a", Scheme(3, false, 32), 32, 64});
}

TEST_F(GptqTest, ZeroPointZeroIsForVersion2) {
  Random random(6);
  QuantizedLinear linear = GptqLinear(Scheme(4, false, 32), 32, 64, random);
  linear.zero_points[3] = -8;  // output 1, group 1
  ExpectError(ErrorCode::kUsage, {"m.a", "output 1, group 1", "gptq_v2"}, [&] {
    Write({{"m.a", linear}});
  });
  Write({{"m.a", linear}}, GptqV2Format());
  const Checkpoint checkpoint = Open();
  ExpectSameLinear(OpenArtifactReader(checkpoint)->Read("m.a"), linear);
}

// ---- files of other tools ----

TEST_F(GptqTest, DynamicOverridesAreRead) {
  Random random(7);
  const QuantizedLinear eight = RandomLinear(Scheme(8, true, 32), 32, 64, random);
  Write({{"m.a", eight}, {"m.b", RandomLinear(Scheme(4, true, 64), 32, 64, random)}});
  SetConfig([](nlohmann::json& config) {
    config["bits"] = 4;
    config["group_size"] = 64;
    config["dynamic"] = {{"m\\.a", {{"bits", 8}, {"group_size", 32}}}};  // no prefix: override
  });
  const Checkpoint checkpoint = Open();
  const auto reader = OpenArtifactReader(checkpoint);
  ExpectSameLinear(reader->Read("m.a"), eight);
  EXPECT_EQ(reader->SchemeOf("m.b"), Scheme(4, true, 64));
}

TEST_F(GptqTest, OverridesThatDisagreeAreRefused) {
  Random random(8);
  Write({{"m.a", RandomLinear(Scheme(4, true, 32), 32, 64, random)}});
  SetConfig([](nlohmann::json& config) {
    config["dynamic"] = {{"+:m", {{"bits", 8}}}, {"+:.*a", {{"bits", 4}}}};
  });
  const Checkpoint checkpoint = Open();
  ExpectError(ErrorCode::kBadInput, {"dynamic", "disagree", "m.a"},
              [&] { OpenArtifactReader(checkpoint)->Read("m.a"); });
  SetConfig([](nlohmann::json& config) {
    config["dynamic"] = {{"-:.*a", nlohmann::json::object()}};
  });
  const Checkpoint excluded = Open();
  ExpectError(ErrorCode::kBadInput, {"m.a.qweight", "leaves it dense"},
              [&] { OpenArtifactReader(excluded)->Read("m.a"); });
}

// Act-order over runs of 16 inputs: the same values with groups of 16.
TEST_F(GptqTest, ScatteredRunsBecomeSmallerGroups) {
  Random random(9);
  const QuantizedLinear linear = GptqLinear(Scheme(4, false, 32), 32, 64, random);
  Write({{"m.a", linear}});
  std::vector<int32_t> index;
  const std::array<int32_t, 4> group_of_run = {1, 0, 0, 1};
  for (const int32_t group : group_of_run) index.insert(index.end(), 16, group);
  EditTensors(path_, {{"m.a.g_idx", "I32", {64}, AsText(index)}});
  SetConfig([](nlohmann::json& config) { config["desc_act"] = true; });
  const Checkpoint checkpoint = Open();
  const QuantizedLinear read = OpenArtifactReader(checkpoint)->Read("m.a");
  EXPECT_EQ(read.scheme, Scheme(4, false, 16));
  EXPECT_EQ(read.codes, linear.codes);
  for (size_t o = 0; o < 32; ++o) {
    for (size_t run = 0; run < 4; ++run) {
      const size_t from = o * 2 + static_cast<size_t>(group_of_run[run]);
      EXPECT_EQ(read.scales[o * 4 + run], linear.scales[from]);
      EXPECT_EQ(read.zero_points[o * 4 + run], linear.zero_points[from]);
    }
  }
}

// Act-order as GPTQ does it: any input may be of any group.
TEST_F(GptqTest, ScatteredInputsHaveTheScalesOfTheirGroups) {
  Random random(12);
  const QuantizedLinear linear = GptqLinear(Scheme(4, false, 32), 96, 64, random);
  Write({{"m.a", linear}});
  std::vector<int32_t> index(64);
  for (int32_t k = 0; k < 64; ++k) index[static_cast<size_t>(k)] = (k * 5 + 3) % 64 / 32;
  EditTensors(path_, {{"m.a.g_idx", "I32", {64}, AsText(index)}});
  SetConfig([](nlohmann::json& config) { config["desc_act"] = true; });
  const Checkpoint checkpoint = Open();
  const auto reader = OpenArtifactReader(checkpoint);
  const QuantizedLinear read = reader->Read("m.a");
  EXPECT_EQ(read.scheme, Scheme(4, false, 1));
  EXPECT_EQ(read.codes, linear.codes);
  for (size_t o = 0; o < 96; ++o) {
    for (size_t k = 0; k < 64; ++k) {
      const size_t from = o * 2 + static_cast<size_t>(index[k]);
      ASSERT_EQ(read.scales[o * 64 + k], linear.scales[from]) << o << " " << k;
      ASSERT_EQ(read.zero_points[o * 64 + k], linear.zero_points[from]) << o << " " << k;
    }
  }
  ExpectRowsAsRead(*reader, "m.a");
  EXPECT_THAT(reader->CheckTensors(), IsEmpty());
}

// Whole groups in another order keep their size.
TEST_F(GptqTest, GroupsMayBeInAnotherOrder) {
  Random random(13);
  const QuantizedLinear linear = GptqLinear(Scheme(4, true, 32), 32, 64, random);
  Write({{"m.a", linear}});
  std::vector<int32_t> index(64, 0);
  std::fill_n(index.begin(), 32, 1);
  EditTensors(path_, {{"m.a.g_idx", "I32", {64}, AsText(index)}});
  const Checkpoint checkpoint = Open();
  const QuantizedLinear read = OpenArtifactReader(checkpoint)->Read("m.a");
  EXPECT_EQ(read.scheme, Scheme(4, true, 32));
  for (size_t o = 0; o < 32; ++o) {
    EXPECT_EQ(read.scales[o * 2], linear.scales[o * 2 + 1]);
    EXPECT_EQ(read.scales[o * 2 + 1], linear.scales[o * 2]);
  }
}

class BadGptqTest : public GptqTest {
 protected:
  void ExpectBad(const std::vector<TensorEdit>& edits, const std::vector<std::string>& parts,
                 bool symmetric = true) {
    Random random(10);
    Write({{"m.a", GptqLinear(Scheme(4, symmetric, 32), 32, 64, random)}});
    EditTensors(path_, edits);
    const Checkpoint checkpoint = Open();
    const auto reader = OpenArtifactReader(checkpoint);
    ExpectError(ErrorCode::kBadInput, parts, [&] { reader->Read("m.a"); });
    EXPECT_THAT(reader->CheckTensors(), testing::Not(IsEmpty()));
  }
  static std::string Repeated(size_t count, uint32_t word) {
    return AsText(std::vector<uint32_t>(count, word));
  }
};

TEST_F(BadGptqTest, EachDefectNamesItsTensor) {
  ExpectBad({{"m.a.qzeros", "I32", {2, 4}, Repeated(8, 0x88888888)}},
            {"m.a.qzeros", "stores 7, found 8", "checkpoint_format is wrong"});
  ExpectBad({{"m.a.qzeros", "I32", {2, 4}, Repeated(8, 0x77777776)}},
            {"m.a.qzeros", "group 0, output 0", "stores 7, found 6"});
  ExpectBad({{"m.a.qzeros", "I32", {2, 4}, Repeated(8, 0x7777777F)}}, {"m.a.qzeros", "wraps"},
            false);
  ExpectBad({{"m.a.qzeros", "I32", {2, 3}, Repeated(6, 0)}}, {"m.a.qzeros", "[2, 3]"});
  ExpectBad({{.name = "m.a.scales", .remove = true}}, {"m.a.scales"});
  ExpectBad({{.name = "m.a.qzeros", .remove = true}}, {"m.a.qzeros"});
  ExpectBad({{"m.a.scales", "F16", {2, 32}, AsText(std::vector<F16>(64, F16{0x7C00}))}},
            {"m.a.scales", "inf"});
  ExpectBad({{"m.a.scales", "F16", {2, 32}, AsText(std::vector<F16>(64, F16{0}))}}, {"m.a.scales"});
  ExpectBad({{"m.a.scales", "I32", {2, 32}, Repeated(64, 1)}}, {"m.a.scales", "I32"});
  ExpectBad({{"m.a.qweight", "I32", {8, 31}, Repeated(248, 1)}}, {"m.a.qweight", "whole number"});
  ExpectBad({{"m.a.qweight", "I16", {8, 32}, std::string(512, 'x')}}, {"m.a.qweight", "I16"});
  ExpectBad({{"m.a.g_idx", "I32", {64}, Repeated(64, 2)}}, {"m.a.g_idx", "of group 2 of 2"});
  ExpectBad({{"m.a.g_idx", "I32", {32}, Repeated(32, 0)}}, {"m.a.g_idx", "[32]"});
  ExpectBad({{"m.a.weight", "F16", {32, 64}, std::string(4096, 'x')}}, {"m.a.weight", "beside"});
}

TEST_F(BadGptqTest, TensorsWithoutAModuleAreExtra) {
  Random random(11);
  Write({{"m.a", RandomLinear(Scheme(4, true, 32), 32, 64, random)}});
  EditTensors(path_, {{"m.b.qzeros", "I32", {1, 4}, Repeated(4, 0x77777777)}});
  const Checkpoint checkpoint = Open();
  const std::vector<TensorProblem> problems = OpenArtifactReader(checkpoint)->CheckTensors();
  ASSERT_FALSE(problems.empty());
  EXPECT_EQ(problems[0].tensor, "m.b.qzeros");
  EXPECT_EQ(problems[0].kind, TensorProblem::Kind::kExtra);
}

TEST_F(BadGptqTest, ConfigurationsThatCannotBeRead) {
  Random random(12);
  Write({{"m.a", RandomLinear(Scheme(4, true, 32), 32, 64, random)}});
  const std::string good = ReadFile(path_ / "config.json");
  for (const auto& [change, part] : std::vector<std::pair<nlohmann::json, std::string>>{
           {{{"bits", 5}}, "bits"},
           {{{"bits", nullptr}}, "bits"},
           {{{"bits", "4"}}, "bits"},
           {{{"group_size", 0}}, "group_size"},
           {{{"sym", 1}}, "sym"},
           {{{"checkpoint_format", "marlin"}}, "marlin"},
           {{{"is_marlin_format", true}}, "marlin"},
           {{{"pack_dtype", "int8"}}, "pack_dtype"},
           {{{"dynamic", nlohmann::json::array()}}, "dynamic"},
           {{{"dynamic", {{"+:(", nlohmann::json::object()}}}}, "dynamic"},
           {{{"dynamic", {{"+:x", {{"bits", 9}}}}}}, "bits"}}) {
    WriteFile(path_ / "config.json", good);
    SetConfig([&](nlohmann::json& config) { config.update(change); });
    const Checkpoint checkpoint = Open();
    ExpectError(ErrorCode::kBadInput, {"config.json", part},
                [&] { OpenArtifactReader(checkpoint); });
  }
}

}  // namespace
}  // namespace quantmill::test
