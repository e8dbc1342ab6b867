// Sound artifacts of every kind, and what verify cannot start on.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

#include "formats/file.h"
#include "formats/json.h"
#include "kernels/core/error.h"
#include "verify_run.h"

namespace quantmill::test {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

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
  nlohmann::json config = ReadJsonFile(tiny.dense() / "config.json");
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
