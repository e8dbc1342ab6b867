// Damage of every kind, and how verify tells it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "formats/sha256.h"
#include "verify_run.h"

namespace quantmill::test {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

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

TEST(DamagedArtifactTest, ZeroedPackedTensorIsFound) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    auto& bytes = tensors.at(std::string(kUp) + ".weight_packed").bytes;
    std::fill(bytes.begin(), bytes.end(), std::byte{0});
  });
  EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(AllOf(HasSubstr(kUp), HasSubstr("constant"))));
  EXPECT_THAT(Lines(Verify(tiny)), Contains(AllOf(HasSubstr(kUp), HasSubstr("constant"))));
}

TEST(DamagedArtifactTest, OneFlippedCodeIsFound) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    tensors.at(std::string(kUp) + ".weight_packed").bytes[5] ^= std::byte{1};
  });
  EXPECT_THAT(Lines(Verify(tiny)), Contains(AllOf(HasSubstr(kUp), HasSubstr("quantize recorded"))));
}

TEST(DamagedArtifactTest, SwappedLayersAreFound) {
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

TEST(DamagedArtifactTest, MissingPartsAreAllFound) {
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

// As if `quantize` had passed the layer over.
void StoreUpDense(const TinyArtifact& tiny) {
  TensorMap dense;
  TinyArtifact::ChangeTensors(tiny.dense(), [&](TensorMap& tensors) { dense = tensors; });
  TinyArtifact::ChangeTensors(tiny.artifact(), [&](TensorMap& tensors) {
    for (const std::string part : {".weight_packed", ".weight_scale", ".weight_shape"}) {
      tensors.erase(kUp + part);
    }
    tensors[std::string(kUp) + ".weight"] = dense.at(std::string(kUp) + ".weight");
  });
}

TEST(DamagedArtifactTest, LayerLeftDenseIsFound) {
  const TinyArtifact tiny;
  StoreUpDense(tiny);
  EXPECT_THAT(Lines(Verify(tiny)), Contains(HasSubstr(kUp)));
  EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(HasSubstr(kUp)));
}

TEST(DamagedArtifactTest, LayerLeftDenseWithoutAWordInTheConfigurationIsFound) {
  const TinyArtifact tiny;
  StoreUpDense(tiny);
  tiny.ChangeJson("config.json", [](nlohmann::json& config) {
    config["quantization_config"]["ignore"].push_back(kUp);
  });
  EXPECT_THAT(Lines(VerifyAlone(tiny)),
              Contains(AllOf(HasSubstr(kUp), HasSubstr("is stored dense, but quantize recorded"))));
}

// ---- defects of dense tensors ----

TEST(DamagedArtifactTest, FlippedBitOfADenseTensorIsFound) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    tensors.at("model.embed_tokens.weight").bytes[100] ^= std::byte{1};
  });
  EXPECT_THAT(Lines(Verify(tiny)), Contains(AllOf(HasSubstr("model.embed_tokens.weight"),
                                                  HasSubstr("first at byte 100"))));
}

TEST(DamagedArtifactTest, NonFiniteDenseTensorIsFoundWithoutReference) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    const F16 nan = ToF16(std::numeric_limits<float>::quiet_NaN());
    std::memcpy(tensors.at("model.norm.weight").bytes.data() + 4, &nan, 2);
  });
  EXPECT_THAT(Lines(VerifyAlone(tiny)), Contains(HasSubstr("model.norm.weight")));
}

TEST(DamagedArtifactTest, ChangedTypeOfADenseTensorIsFound) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(
      tiny.artifact(), [](TensorMap& tensors) { tensors.at("model.norm.weight").dtype = "BF16"; });
  EXPECT_THAT(Lines(Verify(tiny)),
              Contains(AllOf(HasSubstr("model.norm.weight"), HasSubstr("F16 [16] in the ref"))));
}

TEST(DamagedArtifactTest, MissingAndExtraTensorsAreFound) {
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

TEST(DamagedArtifactTest, StoredTiedHeadOfTheReferenceMayBeLeftOut) {
  const TinyArtifact tiny;
  TinyArtifact::ChangeTensors(tiny.dense(), [](TensorMap& tensors) {
    tensors["lm_head.weight"] = tensors.at("model.embed_tokens.weight");
  });
  EXPECT_THAT(Lines(Verify(tiny)), IsEmpty());
}

// ---- the record ----

TEST(DamagedArtifactTest, WrongRecordedErrorIsFound) {
  const TinyArtifact tiny;
  tiny.ChangeJson("quantmill.json", [](nlohmann::json& record) {
    auto& error = record["layers"][3]["weight_error"];
    error = error.get<double>() * (1 + 1e-7);
  });
  EXPECT_THAT(Lines(Verify(tiny)), Contains(AllOf(HasSubstr(TinyArtifact::Modules()[3]),
                                                  HasSubstr("quantize recorded"))));
}

TEST(DamagedArtifactTest, UnrecordedLayerIsFound) {
  const TinyArtifact tiny;
  tiny.ChangeJson("quantmill.json", [](nlohmann::json& record) { record["layers"].erase(3); });
  EXPECT_THAT(Lines(VerifyAlone(tiny)),
              Contains(AllOf(HasSubstr(TinyArtifact::Modules()[3]), HasSubstr("no such layer"))));
}

TEST(DamagedArtifactTest, RecordOfAnotherSchemeIsFound) {
  const TinyArtifact tiny;
  tiny.ChangeJson("quantmill.json", [](nlohmann::json& record) {
    record["layers"][3]["scheme"] = "w8a16 g8 symmetric";
  });
  EXPECT_THAT(Lines(VerifyAlone(tiny)),
              Contains(AllOf(HasSubstr(TinyArtifact::Modules()[3]), HasSubstr("recorded w8a16"))));
}

TEST(DamagedArtifactTest, DamagedRecordsAreFound) {
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
      [](nlohmann::json& record) { record.erase("events"); },
      [](nlohmann::json& record) { record["events"] = "none"; },
      [](nlohmann::json& record) {
        record["events"] = {{{"kind", "x"}}};
      },
      [](nlohmann::json& record) {
        record["events"] = {{{"is_fallback", 1}}};
      },
  };
  for (size_t i = 0; i < damages.size(); ++i) {
    const TinyArtifact tiny;
    tiny.ChangeJson("quantmill.json", damages[i]);
    EXPECT_THAT(Lines(Verify(tiny)), Contains(HasSubstr("quantmill.json"))) << i;
  }
}

// ---- files ----

TEST(DamagedArtifactTest, ChangedTokenizerIsFound) {
  const TinyArtifact tiny;
  tiny.ChangeJson("tokenizer.json", [](nlohmann::json& json) { json["model"]["type"] = "WP"; });
  for (const VerifyReport& report : {Verify(tiny), VerifyAlone(tiny)}) {
    EXPECT_THAT(Lines(report), Contains(AllOf(HasSubstr("tokenizer.json"),
                                              HasSubstr("was changed after quantize"))));
  }
}

TEST(DamagedArtifactTest, MissingSideFileIsFound) {
  const TinyArtifact tiny;
  std::filesystem::remove(tiny.artifact() / "generation_config.json");
  EXPECT_THAT(Lines(Verify(tiny)),
              Contains(AllOf(HasSubstr("generation_config.json"), HasSubstr("missing"))));
}

TEST(DamagedArtifactTest, SideFileThatWasNeverCopiedIsFound) {
  const TinyArtifact tiny;
  WriteTextFile(tiny.dense() / "chat_template.jinja", "{{ messages }}");
  EXPECT_THAT(Lines(Verify(tiny)), Contains(AllOf(HasSubstr("chat_template.jinja"),
                                                  HasSubstr("the reference has this file"))));
}

TEST(DamagedArtifactTest, RecordedHashOfTheWeightsIsChecked) {
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

TEST(DamagedArtifactTest, ChangedConfigurationIsFound) {
  const TinyArtifact tiny;
  tiny.ChangeJson("config.json", [](nlohmann::json& config) { config.erase("rope_theta"); });
  EXPECT_THAT(Lines(Verify(tiny)),
              Contains(AllOf(HasSubstr("config.json"), HasSubstr("/rope_theta"))));
}

TEST(DamagedArtifactTest, EveryDefectIsReportedOnce) {
  const TinyArtifact tiny;
  SetScale(tiny, ToF16(0.0f));
  tiny.ChangeJson("tokenizer.json", [](nlohmann::json& json) { json.clear(); });
  TinyArtifact::ChangeTensors(tiny.artifact(), [](TensorMap& tensors) {
    tensors.at("model.norm.weight").bytes[0] ^= std::byte{1};
  });
  EXPECT_THAT(Lines(Verify(tiny)), SizeIs(3));
}

// ---- what cannot be opened ----

}  // namespace
}  // namespace quantmill::test
