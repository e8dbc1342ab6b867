#include "quant/verify/verify_artifact.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <map>

#include "formats/file.h"
#include "formats/sha256.h"
#include "kernels/core/error.h"
#include "tiny_artifact.h"

namespace quantmill::test {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr const char* kUp = "model.layers.1.mlp.up_proj";
constexpr const char* kGate = "model.layers.1.mlp.gate_proj";

// "place: what" of every problem.
std::vector<std::string> Lines(const VerifyReport& report) {
  std::vector<std::string> lines;
  lines.reserve(report.problems.size());
  for (const Problem& problem : report.problems) {
    lines.push_back(problem.where + ": " + problem.what);
  }
  return lines;
}

VerifyReport Verify(const TinyArtifact& tiny, int threads = 2) {
  ThreadPool pool(threads);
  const ModelSource reference = ModelSource::Open(tiny.dense().string());
  return VerifyArtifact(tiny.artifact().string(), &reference, pool, {});
}

VerifyReport VerifyAlone(const TinyArtifact& tiny) {
  ThreadPool pool(2);
  return VerifyArtifact(tiny.artifact().string(), nullptr, pool, {});
}

// A scale of kUp, as F16 bits.
void SetScale(const TinyArtifact& tiny, F16 value) {
  TinyArtifact::ChangeTensors(tiny.artifact(), [&](TensorMap& tensors) {
    std::memcpy(tensors.at(std::string(kUp) + ".weight_scale").bytes.data() + 6, &value, 2);
  });
}

void RemoveRecord(const TinyArtifact& tiny) {
  std::filesystem::remove(tiny.artifact() / "quantmill.json");
}

TEST(VerifyArtifactTest, HealthyArtifactPasses) {
  const TinyArtifact tiny;
  const VerifyReport report = Verify(tiny);
  EXPECT_THAT(Lines(report), IsEmpty());
  EXPECT_TRUE(report.passed());
  EXPECT_EQ(report.format, "compressed-tensors");
  EXPECT_EQ(report.tensors, 6 + 14 * 3);
  EXPECT_GT(report.bytes_checked, 0u);
  ASSERT_THAT(report.layers, SizeIs(14));
  for (const VerifiedLayer& layer : report.layers) {
    EXPECT_EQ(layer.scheme, "w4a16 g8 symmetric");
    EXPECT_EQ(layer.weight_error, layer.recorded_error) << layer.name;
    EXPECT_GT(*layer.weight_error, 1e-4) << layer.name;
    EXPECT_LT(*layer.weight_error, 2e-2) << layer.name;
  }
}

TEST(VerifyArtifactTest, WithoutReferenceErrorsAreLeftOut) {
  const TinyArtifact tiny;
  const VerifyReport report = VerifyAlone(tiny);
  EXPECT_THAT(Lines(report), IsEmpty());
  EXPECT_EQ(report.reference, "");
  ASSERT_THAT(report.layers, SizeIs(14));
  EXPECT_FALSE(report.layers[0].weight_error.has_value());
  EXPECT_TRUE(report.layers[0].recorded_error.has_value());
}

TEST(VerifyArtifactTest, ArtifactOfAnotherToolNeedsNoRecord) {
  const TinyArtifact tiny;
  RemoveRecord(tiny);
  std::filesystem::remove(tiny.artifact() / "generation_config.json");
  const VerifyReport report = Verify(tiny);
  EXPECT_THAT(Lines(report), IsEmpty());
  EXPECT_FALSE(report.layers[0].recorded_error.has_value());
}

TEST(VerifyArtifactTest, ResultDoesNotDependOnThreads) {
  const TinyArtifact tiny;
  const VerifyReport one = Verify(tiny, 1);
  const VerifyReport five = Verify(tiny, 5);
  ASSERT_EQ(one.layers.size(), five.layers.size());
  for (size_t i = 0; i < one.layers.size(); ++i) {
    EXPECT_EQ(one.layers[i].name, five.layers[i].name);
    EXPECT_EQ(one.layers[i].weight_error, five.layers[i].weight_error);
  }
}

TEST(VerifyArtifactTest, ProgressCountsLayersAndCanStop) {
  const TinyArtifact tiny;
  ThreadPool pool(2);
  int64_t last = 0;
  VerifyOptions options;
  options.progress = [&](int64_t done, int64_t total, const std::string& layer) {
    EXPECT_EQ(total, 14);
    EXPECT_GT(done, last);
    EXPECT_FALSE(layer.empty());
    last = done;
    return false;
  };
  VerifyArtifact(tiny.artifact().string(), nullptr, pool, options);
  EXPECT_EQ(last, 14);
  options.progress = [](int64_t, int64_t, const std::string&) { return true; };
  try {
    VerifyArtifact(tiny.artifact().string(), nullptr, pool, options);
    ADD_FAILURE() << "not interrupted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInterrupted);
  }
}

// ---- every layout, and the cache ----

TEST(VerifyArtifactTest, MixedLayoutsPass) {
  const TinyArtifact tiny(TinyArtifact::Schemes::kMixed);
  for (const VerifyReport& report : {Verify(tiny), VerifyAlone(tiny)}) {
    EXPECT_THAT(Lines(report), IsEmpty());
    ASSERT_THAT(report.layers, SizeIs(14));
    for (const VerifiedLayer& layer : report.layers) {
      EXPECT_EQ(layer.scheme, Describe(MixedScheme(layer.name)));
      EXPECT_EQ(layer.weight_error.has_value(), !report.reference.empty());
      EXPECT_GT(layer.weight_error.value_or(1e-3), 1e-6) << layer.name;
      EXPECT_LT(layer.weight_error.value_or(1e-3), 2e-2) << layer.name;
    }
  }
}

// Each tensor that only some layouts have, gone or changed, is one problem of its name.
TEST(VerifyArtifactTest, DamageToAnyLayoutIsFound) {
  const std::string attention = "model.layers.1.self_attn.";
  const std::string up = kUp;
  const std::map<std::string, std::string> damaged = {
      {attention + "k_scale", std::string(4, '\0')},            // zero
      {attention + "v_scale", "\xFF\xFF\xFF\xFF"},              // NaN
      {attention + "o_proj.weight", std::string(256, '\x7F')},  // NaN
      {attention + "o_proj.input_scale", std::string(4, '\0')},
      {attention + "q_proj.weight", std::string(256, '\1')},  // constant
      {up + ".weight_global_scale", std::string(4, '\0')},
      {up + ".weight_scale", std::string(24, '\xB8')},  // negative
      {"model.layers.1.mlp.down_proj.weight_scale", std::string(24, '\xFF')}};
  for (const auto& [name, bytes] : damaged) {
    const TinyArtifact tiny(TinyArtifact::Schemes::kMixed);
    TinyArtifact::ChangeTensors(tiny.artifact(), [&](TensorMap& tensors) {
      StoredTensor& tensor = tensors.at(name);
      ASSERT_EQ(tensor.bytes.size(), bytes.size()) << name;
      std::memcpy(tensor.bytes.data(), bytes.data(), bytes.size());
    });
    EXPECT_THAT(Lines(Verify(tiny)), Contains(HasSubstr(name)));
    EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(HasSubstr(name)));
    TinyArtifact::ChangeTensors(tiny.artifact(), [&](TensorMap& tensors) { tensors.erase(name); });
    EXPECT_THAT(Lines(Verify(tiny)), Contains(HasSubstr(name)));
    EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(HasSubstr(name)));
  }
}

TEST(VerifyArtifactTest, RoundedInputsArePartOfTheRecordedScheme) {
  const TinyArtifact tiny(TinyArtifact::Schemes::kMixed);
  tiny.ChangeJson("quantmill.json", [](nlohmann::json& record) {
    for (nlohmann::json& layer : record["layers"]) {
      QuantScheme scheme = MixedScheme(layer["name"]);
      scheme.input = {};
      if (layer["name"] == "model.layers.0.self_attn.q_proj") layer["scheme"] = Describe(scheme);
    }
  });
  EXPECT_THAT(Lines(VerifyAlone(tiny)), ElementsAre(AllOf(HasSubstr("layers.0.self_attn.q_proj"),
                                                          HasSubstr("inputs int8 per token"))));
}

TEST(VerifyArtifactTest, ScalesOfACacheThatIsNotQuantizedAreExtra) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    tensors["model.layers.0.self_attn.k_scale"] = {"F32", {1}, std::vector<std::byte>(4)};
  });
  EXPECT_THAT(Lines(Verify(tiny)), ElementsAre(HasSubstr("self_attn.k_scale")));
}

// ---- foldings ----

// Doubles (or halves) every F16 value of a tensor: exact.
void Scale(TensorMap& tensors, const std::string& name, float factor) {
  std::vector<std::byte>& bytes = tensors.at(name).bytes;
  for (size_t at = 0; at < bytes.size(); at += sizeof(F16)) {
    F16 value;
    std::memcpy(&value, bytes.data() + at, sizeof(F16));
    value = ToF16(ToFloat(value) * factor);
    std::memcpy(bytes.data() + at, &value, sizeof(F16));
  }
}

// The first block with scales of 2 at the attention's input: half the gain, twice the scales of q,
// k, v, so that codes and relative errors stay.
void FoldTwo(const TinyArtifact& tiny) {
  const std::string block = "model.layers.0.";
  TinyArtifact::ChangeTensors(tiny.artifact(), [&](TensorMap& tensors) {
    Scale(tensors, block + "input_layernorm.weight", 0.5f);
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
      Scale(tensors, block + "self_attn." + name + ".weight_scale", 2);
    }
  });
  std::string twos;
  for (int i = 0; i < 16; ++i) twos += "4000";
  tiny.ChangeJson("quantmill.json", [&](nlohmann::json& record) {
    record["folding"]["model.layers.0"]["attention_in"] = twos;
  });
}

TEST(VerifyArtifactTest, FoldedArtifactIsComparedWithTheFoldedReference) {
  const TinyArtifact tiny;
  FoldTwo(tiny);
  EXPECT_THAT(Lines(Verify(tiny)), IsEmpty());
  EXPECT_THAT(Lines(VerifyAlone(tiny)), IsEmpty());
}

TEST(VerifyArtifactTest, ChangedFoldingIsFound) {
  const TinyArtifact tiny;
  FoldTwo(tiny);
  tiny.ChangeJson("quantmill.json", [](nlohmann::json& record) {
    auto& scales = record["folding"]["model.layers.0"]["attention_in"];
    scales = "3f80" + scales.get<std::string>().substr(4);
  });
  const std::vector<std::string> lines = Lines(Verify(tiny));
  EXPECT_THAT(lines, Contains(HasSubstr("input_layernorm")));
  for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
    EXPECT_THAT(lines, Contains(HasSubstr(name)));
  }
  EXPECT_THAT(lines, SizeIs(4));
}

TEST(VerifyArtifactTest, FoldingOfNoBlockIsADamagedRecord) {
  const TinyArtifact tiny;
  for (const nlohmann::json& folding :
       {nlohmann::json("x"), nlohmann::json{{"model.layers.7", nlohmann::json::object()}},
        nlohmann::json{{"model.layers.0", {{"attention_in", "4000"}}}}}) {
    tiny.ChangeJson("quantmill.json", [&](nlohmann::json& record) { record["folding"] = folding; });
    EXPECT_THAT(Lines(Verify(tiny)), Contains(HasSubstr("'folding'"))) << folding;
  }
}

// ---- defects of quantized tensors ----

class BadScaleTest : public ::testing::TestWithParam<float> {};

TEST_P(BadScaleTest, IsFoundWithAndWithoutReference) {
  const TinyArtifact tiny;
  SetScale(tiny, ToF16(GetParam()));
  EXPECT_THAT(Lines(Verify(tiny)), Contains(HasSubstr(std::string(kUp) + ".weight_scale")));
  EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(HasSubstr(std::string(kUp) + ".weight_scale")));
}

INSTANTIATE_TEST_SUITE_P(Values, BadScaleTest,
                         ::testing::Values(std::numeric_limits<float>::quiet_NaN(),
                                           std::numeric_limits<float>::infinity(), 0.0f));

TEST(VerifyArtifactTest, ZeroedPackedTensorIsFound) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    auto& bytes = tensors.at(std::string(kUp) + ".weight_packed").bytes;
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
  });
  EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(AllOf(HasSubstr(kUp), HasSubstr("constant"))));
  EXPECT_THAT(Lines(Verify(tiny)), Contains(AllOf(HasSubstr(kUp), HasSubstr("constant"))));
}

TEST(VerifyArtifactTest, OneFlippedCodeIsFound) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    tensors.at(std::string(kUp) + ".weight_packed").bytes[5] ^= std::byte{1};
  });
  EXPECT_THAT(Lines(Verify(tiny)), Contains(AllOf(HasSubstr(kUp), HasSubstr("quantize recorded"))));
}

TEST(VerifyArtifactTest, SwappedLayersAreFound) {
  const TinyArtifact tiny;
  RemoveRecord(tiny);  // the error alone tells
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    for (const std::string part : {".weight_packed", ".weight_scale"}) {
      std::swap(tensors.at(kUp + part), tensors.at(kGate + part));
    }
  });
  const std::vector<std::string> lines = Lines(Verify(tiny));
  EXPECT_THAT(lines, Contains(AllOf(HasSubstr(kUp), HasSubstr("storing zeros"))));
  EXPECT_THAT(lines, Contains(AllOf(HasSubstr(kGate), HasSubstr("storing zeros"))));
}

TEST(VerifyArtifactTest, MissingPartsAreAllFound) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    tensors.erase(std::string(kUp) + ".weight_scale");
    tensors.erase(std::string(kGate) + ".weight_shape");
  });
  for (const VerifyReport& report : {Verify(tiny), VerifyAlone(tiny)}) {
    EXPECT_THAT(Lines(report), Contains(HasSubstr(std::string(kUp) + ".weight_scale")));
    EXPECT_THAT(Lines(report), Contains(HasSubstr(std::string(kGate) + ".weight_shape")));
    EXPECT_THAT(report.problems, SizeIs(2));
  }
}

TEST(VerifyArtifactTest, LayerLeftDenseIsFound) {
  const TinyArtifact tiny;
  TensorMap dense;
  TinyArtifact::ChangeTensors(tiny.dense(), [&](TensorMap& tensors) { dense = tensors; });
  TinyArtifact::ChangeTensors(tiny.artifact(), [&](TensorMap& tensors) {
    for (const std::string part : {".weight_packed", ".weight_scale", ".weight_shape"}) {
      tensors.erase(kUp + part);
    }
    tensors[std::string(kUp) + ".weight"] = dense.at(std::string(kUp) + ".weight");
  });
  EXPECT_THAT(Lines(Verify(tiny)), Contains(HasSubstr(kUp)));
  EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(HasSubstr(kUp)));
}

TEST(VerifyArtifactTest, LayerLeftDenseWithoutAWordInTheConfigurationIsFound) {
  const TinyArtifact tiny;
  TensorMap dense;
  TinyArtifact::ChangeTensors(tiny.dense(), [&](TensorMap& tensors) { dense = tensors; });
  TinyArtifact::ChangeTensors(tiny.artifact(), [&](TensorMap& tensors) {
    for (const std::string part : {".weight_packed", ".weight_scale", ".weight_shape"}) {
      tensors.erase(kUp + part);
    }
    tensors[std::string(kUp) + ".weight"] = dense.at(std::string(kUp) + ".weight");
  });
  tiny.ChangeJson("config.json", [](nlohmann::json& config) {
    config["quantization_config"]["ignore"].push_back(kUp);
  });
  EXPECT_THAT(Lines(VerifyAlone(tiny)),
              Contains(AllOf(HasSubstr(kUp), HasSubstr("is stored dense, but quantize recorded"))));
}

// ---- defects of dense tensors ----

TEST(VerifyArtifactTest, FlippedBitOfADenseTensorIsFound) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    tensors.at("model.embed_tokens.weight").bytes[100] ^= std::byte{1};
  });
  EXPECT_THAT(Lines(Verify(tiny)), Contains(AllOf(HasSubstr("model.embed_tokens.weight"),
                                                  HasSubstr("first at byte 100"))));
}

TEST(VerifyArtifactTest, NonFiniteDenseTensorIsFoundWithoutReference) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    const F16 nan = ToF16(std::numeric_limits<float>::quiet_NaN());
    std::memcpy(tensors.at("model.norm.weight").bytes.data() + 4, &nan, 2);
  });
  EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(HasSubstr("model.norm.weight")));
}

TEST(VerifyArtifactTest, ChangedTypeOfADenseTensorIsFound) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(
      tiny.artifact(), [](TensorMap& tensors) { tensors.at("model.norm.weight").dtype = "BF16"; });
  EXPECT_THAT(Lines(Verify(tiny)),
              Contains(AllOf(HasSubstr("model.norm.weight"), HasSubstr("F16 [16] in the ref"))));
}

TEST(VerifyArtifactTest, MissingAndExtraTensorsAreFound) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    tensors.erase("model.norm.weight");
    tensors.erase("model.layers.0.input_layernorm.weight");
    tensors["model.stray.weight"] = tensors.at("model.embed_tokens.weight");
  });
  const std::vector<std::string> lines = Lines(Verify(tiny));
  EXPECT_THAT(lines, Contains(AllOf(HasSubstr("model.norm.weight"), HasSubstr("missing"))));
  EXPECT_THAT(lines, Contains(AllOf(HasSubstr("model.layers.0.input_layernorm.weight"),
                                    HasSubstr("missing"))));
  EXPECT_THAT(lines, Contains(AllOf(HasSubstr("model.stray.weight"), HasSubstr("extra"))));
  EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(HasSubstr("missing")));
}

TEST(VerifyArtifactTest, StoredTiedHeadOfTheReferenceMayBeLeftOut) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.dense(), [](TensorMap& tensors) {
    tensors["lm_head.weight"] = tensors.at("model.embed_tokens.weight");
  });
  EXPECT_THAT(Lines(Verify(tiny)), IsEmpty());
}

// ---- the record ----

TEST(VerifyArtifactTest, WrongRecordedErrorIsFound) {
  const TinyArtifact tiny;
  tiny.ChangeJson("quantmill.json", [](nlohmann::json& record) {
    auto& error = record["layers"][3]["weight_error"];
    error = error.get<double>() * (1 + 1e-7);
  });
  EXPECT_THAT(Lines(Verify(tiny)), Contains(AllOf(HasSubstr(TinyArtifact::Modules()[3]),
                                                  HasSubstr("quantize recorded"))));
}

TEST(VerifyArtifactTest, UnrecordedLayerIsFound) {
  const TinyArtifact tiny;
  tiny.ChangeJson("quantmill.json", [](nlohmann::json& record) { record["layers"].erase(3); });
  EXPECT_THAT(Lines(VerifyAlone(tiny)),
              Contains(AllOf(HasSubstr(TinyArtifact::Modules()[3]), HasSubstr("no such layer"))));
}

TEST(VerifyArtifactTest, RecordOfAnotherSchemeIsFound) {
  const TinyArtifact tiny;
  tiny.ChangeJson("quantmill.json", [](nlohmann::json& record) {
    record["layers"][3]["scheme"] = "w8a16 g8 symmetric";
  });
  EXPECT_THAT(Lines(VerifyAlone(tiny)),
              Contains(AllOf(HasSubstr(TinyArtifact::Modules()[3]), HasSubstr("recorded w8a16"))));
}

TEST(VerifyArtifactTest, DamagedRecordsAreFound) {
  const std::vector<std::function<void(nlohmann::json&)>> damages = {
      [](nlohmann::json& record) { record.erase("layers"); },
      [](nlohmann::json& record) { record.erase("files"); },
      [](nlohmann::json& record) { record = nlohmann::json::array(); },
      [](nlohmann::json& record) { record["layers"] = 3; },
      [](nlohmann::json& record) { record["layers"][0] = "x"; },
      [](nlohmann::json& record) { record["layers"][0].erase("scheme"); },
      [](nlohmann::json& record) { record["layers"][0]["weight_error"] = nullptr; },
      [](nlohmann::json& record) { record["layers"].push_back(record["layers"][0]); },
      [](nlohmann::json& record) { record["files"]["../dense/config.json"] = "00"; },
      [](nlohmann::json& record) { record["files"][".."] = "00"; },
      [](nlohmann::json& record) { record["files"]["tokenizer.json"] = 1; },
  };
  for (size_t i = 0; i < damages.size(); ++i) {
    const TinyArtifact tiny;
    tiny.ChangeJson("quantmill.json", damages[i]);
    EXPECT_THAT(Lines(Verify(tiny)), Contains(HasSubstr("quantmill.json"))) << i;
  }
}

// ---- files ----

TEST(VerifyArtifactTest, ChangedTokenizerIsFound) {
  const TinyArtifact tiny;
  tiny.ChangeJson("tokenizer.json", [](nlohmann::json& json) { json["model"]["type"] = "WP"; });
  for (const VerifyReport& report : {Verify(tiny), VerifyAlone(tiny)}) {
    EXPECT_THAT(Lines(report), Contains(AllOf(HasSubstr("tokenizer.json"),
                                              HasSubstr("was changed after quantize"))));
  }
}

TEST(VerifyArtifactTest, MissingSideFileIsFound) {
  const TinyArtifact tiny;
  std::filesystem::remove(tiny.artifact() / "generation_config.json");
  EXPECT_THAT(Lines(Verify(tiny)),
              Contains(AllOf(HasSubstr("generation_config.json"), HasSubstr("missing"))));
}

TEST(VerifyArtifactTest, SideFileThatWasNeverCopiedIsFound) {
  const TinyArtifact tiny;
  WriteTextFile(tiny.dense() / "chat_template.jinja", "{{ messages }}");
  EXPECT_THAT(Lines(Verify(tiny)), Contains(AllOf(HasSubstr("chat_template.jinja"),
                                                  HasSubstr("the reference has this file"))));
}

TEST(VerifyArtifactTest, RecordedHashOfTheWeightsIsChecked) {
  const TinyArtifact tiny;
  tiny.ChangeJson("quantmill.json", [&](nlohmann::json& record) {
    record["files"]["model.safetensors"] = HashFile(tiny.artifact() / "model.safetensors");
  });
  EXPECT_THAT(Lines(Verify(tiny)), IsEmpty());
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    tensors.at("model.norm.weight").bytes[0] ^= std::byte{1};
  });
  EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(HasSubstr("was changed after quantize")));
}

TEST(VerifyArtifactTest, ChangedConfigurationIsFound) {
  const TinyArtifact tiny;
  tiny.ChangeJson("config.json", [](nlohmann::json& config) { config.erase("rope_theta"); });
  EXPECT_THAT(Lines(Verify(tiny)),
              Contains(AllOf(HasSubstr("config.json"), HasSubstr("/rope_theta"))));
}

TEST(VerifyArtifactTest, EveryDefectIsReportedOnce) {
  const TinyArtifact tiny;
  SetScale(tiny, ToF16(0.0f));
  tiny.ChangeJson("tokenizer.json", [](nlohmann::json& json) { json.clear(); });
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    tensors.at("model.norm.weight").bytes[0] ^= std::byte{1};
  });
  EXPECT_THAT(Lines(Verify(tiny)), SizeIs(3));
}

// ---- what cannot be opened ----

void ExpectError(ErrorCode code, const std::string& text, const std::function<void()>& call) {
  try {
    call();
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_THAT(error.what(), HasSubstr(text));
  }
}

TEST(VerifyArtifactTest, TruncatedShardThrows) {
  const TinyArtifact tiny;
  const std::filesystem::path shard = tiny.artifact() / "model.safetensors";
  std::filesystem::resize_file(shard, std::filesystem::file_size(shard) - 1);
  ExpectError(ErrorCode::kBadInput, "model.safetensors", [&] { VerifyAlone(tiny); });
}

TEST(VerifyArtifactTest, DenseCheckpointIsNoArtifact) {
  const TinyArtifact tiny;
  ThreadPool pool(1);
  ExpectError(ErrorCode::kBadInput, "no quantization_config",
              [&] { VerifyArtifact(tiny.dense().string(), nullptr, pool, {}); });
}

TEST(VerifyArtifactTest, QuantizedReferenceIsRefused) {
  const TinyArtifact tiny;
  ThreadPool pool(1);
  const ModelSource reference = ModelSource::Open(tiny.artifact().string());
  ExpectError(ErrorCode::kUsage, "quantized itself",
              [&] { VerifyArtifact(tiny.artifact().string(), &reference, pool, {}); });
}

TEST(VerifyArtifactTest, AReferenceOfOtherShapeIsAProblemOfEveryLayer) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.dense(), [](TensorMap& tensors) {
    for (auto& [name, tensor] : tensors) {
      if (name.ends_with("up_proj.weight")) {
        tensor.shape[0] -= 8;
        tensor.bytes.resize(tensor.bytes.size() - 8 * 16 * 2);
      }
      if (name.ends_with("gate_proj.weight")) {
        tensor.shape[0] -= 8;
        tensor.bytes.resize(tensor.bytes.size() - 8 * 16 * 2);
      }
      if (name.ends_with("down_proj.weight")) {
        tensor.shape[1] -= 8;
        tensor.bytes.resize(tensor.bytes.size() - 8 * 16 * 2);
      }
    }
  });
  nlohmann::json config =
      nlohmann::json::parse(ReadTextFile(tiny.dense() / "config.json", 1 << 20));
  config["intermediate_size"] = 16;
  std::filesystem::remove(tiny.dense() / "config.json");
  WriteTextFile(tiny.dense() / "config.json", config.dump());
  const std::vector<std::string> lines = Lines(Verify(tiny));
  for (const std::string name : {"up_proj", "gate_proj", "down_proj"}) {
    EXPECT_THAT(lines,
                Contains(AllOf(HasSubstr("layers.0.mlp." + name), HasSubstr("in the reference"))));
  }
}

}  // namespace
}  // namespace quantmill::test
