// Scales of a quantized cache.
#include <limits>

#include "formats/compressed_tensors.h"
#include "tests/formats/artifact_test_util.h"

namespace quantmill::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

constexpr KvScheme kPerTensor = {KvScheme::Type::kFp8, false};
constexpr KvScheme kPerHead = {KvScheme::Type::kFp8, true};
const std::string kAttention = "model.layers.0.self_attn";

class KvTest : public testing::Test {
 protected:
  void Write(const TestCache& cache) {
    Random random(21);
    WriteArtifact(path_, {{"model.l", RandomLinear({4, true, 32, DType::kF16}, 3, 64, random)}},
                  CompressedTensorsFormat(), cache);
  }
  void ExpectBad(const std::vector<TensorEdit>& edits, const std::vector<std::string>& parts,
                 int64_t kv_heads = 3) {
    Write({kPerHead, 3, {{kAttention, {{1, 2, 3}, {4, 5, 6}}}}});
    EditTensors(path_, edits);
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const auto reader = OpenArtifactReader(checkpoint);
    ExpectError(ErrorCode::kBadInput, parts, [&] { reader->ReadKv(kAttention, kv_heads); });
  }

  TempFolder temp_;
  const std::filesystem::path path_ = temp_ / "model";
};

TEST_F(KvTest, RoundTrips) {
  const KvScales one = {{0.5f}, {0.1f}};
  Write({kPerTensor, 3, {{kAttention, one}}});
  {
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    const auto reader = OpenArtifactReader(checkpoint);
    EXPECT_EQ(reader->kv_scheme(), kPerTensor);
    EXPECT_EQ(reader->ReadKv(kAttention, 3), one);
    EXPECT_THAT(reader->KvTensorsOf(kAttention),
                ElementsAre(kAttention + ".k_scale", kAttention + ".v_scale"));
    EXPECT_EQ(checkpoint.Info(kAttention + ".k_scale").shape, std::vector<int64_t>{1});
    EXPECT_THAT(reader->CheckTensors(), IsEmpty());
    EXPECT_THAT(reader->modules(), ElementsAre("model.l"));
  }
  const KvScales heads = {{1, 2, 3}, {4, 5, 6}};
  Write({kPerHead, 3, {{kAttention, heads}}});
  const Checkpoint checkpoint = Checkpoint::Open(path_.string());
  const auto reader = OpenArtifactReader(checkpoint);
  EXPECT_EQ(reader->kv_scheme(), kPerHead);
  EXPECT_EQ(reader->ReadKv(kAttention, 3), heads);
  EXPECT_EQ(checkpoint.Info(kAttention + ".v_scale").shape, (std::vector<int64_t>{3, 1, 1}));
  EXPECT_THAT(reader->CheckTensors(), IsEmpty());
}

// Names and shapes are those that the library gives an attention module (make_golden.py).
TEST_F(KvTest, NamesAndShapesAreTheLibrarys) {
  for (const KvScheme& kv : {kPerTensor, kPerHead}) {
    const Checkpoint golden = Checkpoint::Open(kv.per_head ? "tests/formats/golden/kv_attn_head"
                                                           : "tests/formats/golden/kv_tensor");
    const auto reader = OpenArtifactReader(golden);
    EXPECT_EQ(reader->kv_scheme(), kv);
    EXPECT_THAT(golden.names(), SizeIs(4));
    for (const std::string attention : {"model.layers.0.self_attn", "model.layers.1.self_attn"}) {
      const KvScales scales = reader->ReadKv(attention, 2);
      EXPECT_THAT(scales.key, SizeIs(kv.per_head ? 2 : 1));
      Write({kv, 2, {{attention, scales}}});
      const Checkpoint ours = Checkpoint::Open(path_.string());
      for (const std::string& tensor : reader->KvTensorsOf(attention)) {
        EXPECT_EQ(ours.Info(tensor).dtype, golden.Info(tensor).dtype);
        EXPECT_EQ(ours.Info(tensor).shape, golden.Info(tensor).shape);
        EXPECT_TRUE(std::ranges::equal(ours.Bytes(tensor), golden.Bytes(tensor)));
      }
    }
  }
}

TEST_F(KvTest, ReadsOtherShapesAndTypes) {
  Write({kPerTensor, 3, {{kAttention, {{1}, {2}}}}});
  EditTensors(path_, {{kAttention + ".k_scale", "BF16", {}, AsText(std::vector{ToBF16(3)})},
                      {kAttention + ".v_scale", "F16", {1, 1}, AsText(std::vector{ToF16(4)})}});
  const Checkpoint checkpoint = Checkpoint::Open(path_.string());
  EXPECT_EQ(OpenArtifactReader(checkpoint)->ReadKv(kAttention, 3), (KvScales{{3}, {4}}));
}

TEST_F(KvTest, WrongScales) {
  const std::string key = kAttention + ".k_scale";
  const auto floats = [&](std::vector<int64_t> shape, const std::vector<float>& values) {
    return std::vector<TensorEdit>{{key, "F32", std::move(shape), AsText(values)}};
  };
  ExpectBad({{.name = key, .remove = true}}, {"no tensor '" + key + "'"});
  ExpectBad(floats({3}, {1, 0, 2}), {key, "scale 1 is zero"});
  ExpectBad(floats({3}, {1, 2, -3}), {key, "scale 2 is negative"});
  ExpectBad(floats({3}, {std::numeric_limits<float>::quiet_NaN(), 2, 3}), {key, "NaN"});
  ExpectBad(floats({2}, {1, 2}), {key, "F32 [2]", "expected F32 [3, 1, 1]"});
  ExpectBad({{key, "I32", {3}, "aaaabbbbcccc"}}, {key, "is I32"});
  ExpectBad({}, {key, "expected F32 [4, 1, 1]"}, 4);
}

TEST_F(KvTest, TheWholeFileCheckLooksAtThem) {
  const auto problems = [&] {
    const Checkpoint checkpoint = Checkpoint::Open(path_.string());
    std::vector<std::string> found;
    for (const TensorProblem& problem : OpenArtifactReader(checkpoint)->CheckTensors()) {
      found.push_back(std::string(NameOf(problem.kind)) + " " + problem.tensor);
    }
    return found;
  };
  const std::string key = kAttention + ".k_scale";
  Write({kPerTensor, 3, {{kAttention, {{1}, {2}}}}});
  EditTensors(path_, {{key, "F32", {1}, AsText(std::vector{-1.0f})}});
  EXPECT_THAT(problems(), ElementsAre("invalid " + key));
  Write({});
  EditTensors(path_, {{key, "F32", {1}, AsText(std::vector{1.0f})}});
  EXPECT_THAT(problems(), ElementsAre("extra " + key));
}

TEST_F(KvTest, IntegerCachesAreNoMatterOfTheFile) {
  for (const KvScheme::Type type : {KvScheme::Type::kInt8, KvScheme::Type::kInt4}) {
    ExpectError(ErrorCode::kUsage, {"chosen where the model runs"},
                [&] { CompressedTensorsFormat().CheckSupportedKv({type}); });
  }
  EXPECT_NO_THROW(CompressedTensorsFormat().CheckSupportedKv(kPerHead));
  EXPECT_THAT(CompressedTensorsFormat().DeclareKv("a", {}, 2), IsEmpty());
}

}  // namespace
}  // namespace quantmill::test
