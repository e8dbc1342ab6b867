// Round trips, and files of the format's own library.
#include "formats/compressed_tensors.h"

#include <nlohmann/json.hpp>

#include "tests/formats/artifact_test_util.h"

namespace quantmill::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

TEST(CompressedTensors, RoundTripsEveryScheme) {
  Random random(3);
  NamedLinears linears;
  for (int bits = 2; bits <= 8; ++bits) {
    for (const bool symmetric : {true, false}) {
      for (const int64_t group : {QuantScheme::kPerChannel, int64_t{32}, int64_t{128}}) {
        for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
          const QuantScheme scheme{bits, symmetric, group, dtype};
          const int64_t out = random.Int(2, 40);
          const int64_t in = group > 0 ? group * random.Int(1, 3) : random.Int(2, 300);
          linears.emplace_back("model.l" + std::to_string(linears.size()),
                               RandomLinear(scheme, out, in, random));
        }
      }
    }
  }
  TempFolder temp;
  WriteArtifact(temp / "m", linears, CompressedTensorsFormat());
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  const auto reader = OpenArtifactReader(checkpoint);
  ASSERT_NE(reader, nullptr);
  EXPECT_EQ(reader->format(), "compressed-tensors");
  EXPECT_EQ(reader->modules().size(), linears.size());
  for (const auto& [name, want] : linears) {
    EXPECT_EQ(reader->SchemeOf(name), want.scheme);
    ExpectSameLinear(reader->Read(name), want);
    EXPECT_EQ(reader->TensorsOf(name).size(), want.scheme.symmetric ? 3u : 4u);
    const QuantizedModule module = reader->Describe(name);
    EXPECT_EQ(module.out, want.out);
    EXPECT_EQ(module.in, want.in);
  }
}

TEST(CompressedTensors, OneSchemeUsesTheClassTarget) {
  Random random(4);
  const QuantScheme scheme{4, true, 32, DType::kF16};
  TempFolder temp;
  WriteArtifact(temp / "m",
                {{"model.a", RandomLinear(scheme, 8, 64, random)},
                 {"model.b", RandomLinear(scheme, 8, 32, random)}},
                CompressedTensorsFormat());
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  const auto reader = OpenArtifactReader(checkpoint);
  EXPECT_THAT(reader->modules(), ElementsAre("model.a", "model.b"));
  EXPECT_EQ(reader->SchemeOf("model.b"), scheme);
  EXPECT_EQ(reader->SchemeOf("lm_head"), std::nullopt);
  EXPECT_THAT(reader->CheckTensors(), IsEmpty());
  EXPECT_THAT(reader->TensorsOf("model.a"),
              ElementsAre("model.a.weight_packed", "model.a.weight_scale", "model.a.weight_shape"));
  EXPECT_EQ(checkpoint.Info("model.a.weight_packed").shape, (std::vector<int64_t>{8, 8}));
}

TEST(CompressedTensors, DenseCheckpointHasNoReader) {
  TempFolder temp;
  WriteFile(temp / "m/config.json", R"({"quantization_config":null})");
  WriteFile(temp / "m/model.safetensors", Safetensors("{}", ""));
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  EXPECT_EQ(OpenArtifactReader(checkpoint), nullptr);
}

// golden/NAME was compressed, and golden/NAME_expected.safetensors decoded again, by the
// compressed-tensors library (make_golden.py): packed integers, and a module of every layout.
class GoldenTest : public testing::TestWithParam<const char*> {
 protected:
  std::string folder() const { return std::string("tests/formats/golden/") + GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(All, GoldenTest, testing::Values("packed", "layouts"));

TEST_P(GoldenTest, ReadsTheLibrarysFiles) {
  const Checkpoint checkpoint = Checkpoint::Open(folder());
  const SafetensorsFile expected = SafetensorsFile::Open(folder() + "_expected.safetensors");
  const auto reader = OpenArtifactReader(checkpoint);
  ASSERT_EQ(reader->modules().size(), expected.tensors().size());
  EXPECT_GE(expected.tensors().size(), 14u);
  for (const TensorInfo& info : expected.tensors()) {
    const QuantizedLinear linear = reader->Read(info.name);
    ASSERT_EQ(info.shape, (std::vector{linear.out, linear.in}));
    const Tensor weight = HostTensor(DType::kF32, linear.out, linear.in);
    Dequantize(linear, weight);
    const auto bytes = expected.Bytes(info);
    for (int64_t i = 0; i < info.elements(); ++i) {
      // The library rounds the product to the type of the scale (FP4: to BF16). It is exact in
      // float where that type is shorter, so that one rounding from our float is the same value.
      float want = 0;
      if (info.dtype == "F32") {
        std::memcpy(&want, bytes.data() + i * 4, 4);
      } else {
        uint16_t bits = 0;
        std::memcpy(&bits, bytes.data() + i * 2, 2);
        want = info.dtype == "F16" ? ToFloat(F16{bits}) : ToFloat(BF16{bits});
      }
      const float got = weight.Row<float>(0)[i];
      ASSERT_EQ(RoundTo(*info.type(), got), want) << info.name << " " << i;
    }
  }
  EXPECT_THAT(reader->CheckTensors(), IsEmpty());
}

TEST_P(GoldenTest, WritesTheLibrarysBytes) {
  const Checkpoint golden = Checkpoint::Open(folder());
  const auto reader = OpenArtifactReader(golden);
  NamedLinears linears;
  for (const std::string& module : reader->modules()) {
    const QuantizedLinear linear = reader->Read(module);
    // Read, but never written: servers could not load them.
    if (module == "model.w8_asym_a8" || module == "model.fp8_block_ragged") continue;
    linears.emplace_back(module, linear);
  }
  TempFolder temp;
  WriteArtifact(temp / "m", linears, CompressedTensorsFormat());
  const Checkpoint ours = Checkpoint::Open((temp / "m").string());
  for (const auto& [module, linear] : linears) {
    EXPECT_EQ(OpenArtifactReader(ours)->SchemeOf(module), linear.scheme);
    for (const std::string& tensor : reader->TensorsOf(module)) {
      EXPECT_EQ(ours.Info(tensor).dtype, golden.Info(tensor).dtype) << tensor;
      EXPECT_EQ(ours.Info(tensor).shape, golden.Info(tensor).shape) << tensor;
      const auto a = ours.Bytes(tensor);
      const auto b = golden.Bytes(tensor);
      EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin(), b.end())) << tensor;
    }
  }
}

// The same stored numbers in the other order: weight_packed is the transpose of GPTQ's qweight,
// whose word k of column n holds the codes of inputs 8k to 8k + 7, lowest bits first.
TEST(CompressedTensors, IsTheTransposeOfGptq) {
  Random random(5);
  const QuantizedLinear linear = RandomLinear({4, true, 32, DType::kF16}, 24, 64, random);
  TempFolder temp;
  WriteArtifact(temp / "m", {{"l", linear}}, CompressedTensorsFormat());
  const Checkpoint checkpoint = Checkpoint::Open((temp / "m").string());
  const auto bytes = checkpoint.Bytes("l.weight_packed");
  for (int64_t n = 0; n < 24; ++n) {
    for (int64_t k = 0; k < 8; ++k) {
      uint32_t qweight = 0;
      for (int64_t j = 0; j < 8; ++j) {
        const int8_t code = linear.codes[static_cast<size_t>(n * 64 + 8 * k + j)];
        qweight |= static_cast<uint32_t>(code + 8) << (4 * j);
      }
      uint32_t packed = 0;
      std::memcpy(&packed, bytes.data() + (n * 8 + k) * 4, 4);
      ASSERT_EQ(packed, qweight);
    }
  }
}

TEST(CompressedTensors, CheckSupported) {
  const auto refused = [](const QuantizedModule& module, const std::string& part) {
    ExpectError(ErrorCode::kUsage, {"model.l", part},
                [&] { CompressedTensorsFormat().CheckSupported(module); });
  };
  const QuantScheme scheme{4, true, 128, DType::kF16};
  EXPECT_NO_THROW(CompressedTensorsFormat().CheckSupported({"model.l", scheme, 5, 256}));
  refused({"model.l", scheme, 5, 200}, "no multiple of the group size 128");
  refused({"model.l", scheme, 0, 128}, "[0, 128]");
  refused({"model.l", {9, true, 128, DType::kF16}, 5, 128}, "9 bits");
  refused({"model.l", {4, true, 0, DType::kF16}, 5, 128}, "group size of 0");
  refused({"model.l", {4, true, 128, DType::kI8}, 5, 128}, "scales of type I8");
}

TEST(CompressedTensorsDeathTest, ScalesMustBeStoredExactly) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Random random(6);
  QuantizedLinear linear = RandomLinear({4, true, 32, DType::kF16}, 2, 32, random);
  TempFolder temp;
  linear.scales[0] = 0.1f;
  EXPECT_DEATH(WriteArtifact(temp / "m", {{"l", linear}}, CompressedTensorsFormat()),
               "not rounded");
  linear.scales[0] = 0;
  EXPECT_DEATH(WriteArtifact(temp / "m", {{"l", linear}}, CompressedTensorsFormat()), "is zero");
}

TEST(ArtifactFormat, Registry) {
  EXPECT_EQ(&FindArtifactFormat("compressed-tensors"), &CompressedTensorsFormat());
  ExpectError(ErrorCode::kUsage, {"'gguff'", "known: compressed-tensors"},
              [] { FindArtifactFormat("gguff"); });
}

}  // namespace
}  // namespace quantmill::test
