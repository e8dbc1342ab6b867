// Models whose keys, values and inputs are rounded as an artifact or a flag says.
#include "quant/runtime/kv_precision.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/quant/runtime/golden_model.h"
#include "tests/quant/verify/tiny_artifact.h"

namespace quantmill::test {
namespace {

double Spread(const std::vector<float>& logits) {
  const auto [low, high] = std::minmax_element(logits.begin(), logits.end());
  return *high - *low;
}
double LargestDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::abs(double{a[i]} - b[i]));
  return largest;
}

class KvPrecisionTest : public BackendTest {};

TEST_P(KvPrecisionTest, DecodeEqualsPrefillBitForBit) {
  for (const char* name : {"llama_gqa", "mistral_window"}) {
    const Expected expected = ReadExpected(name);
    const ModelSource source = ModelSource::Open(GoldenFolder(name));
    DecoderModel floats(backend(), exec(), source, Compute::kF32);
    const auto exact = RunInSteps(tested(), floats, expected.ids, {1000});
    for (const std::string& kv : KvPrecisionNames()) {
      SCOPED_TRACE(std::string(name) + ", " + kv);
      DecoderModel model(backend(), exec(), source, Compute::kF32, KvPrecisionNamed(kv, source));
      const auto whole = RunInSteps(tested(), model, expected.ids, {1000});
      for (const std::vector<int64_t>& steps : {std::vector<int64_t>{1}, {15, 1, 1, 16, 2}}) {
        EXPECT_EQ(RunInSteps(tested(), model, expected.ids, steps), whole);
      }
      const double difference = LargestDifference(whole, exact);
      if (kv == "auto" || kv == "f32") {
        EXPECT_EQ(difference, 0);
      } else {
        EXPECT_GT(difference, 1e-5) << "nothing was rounded";
        EXPECT_LT(difference, (kv == "int4" ? 0.5 : 0.2) * Spread(exact));
      }
    }
  }
}

// INT8 and FP8 inputs, dynamic and static, FP4 weights, FP8 blocks and an FP8 cache in one model:
// the tested backend runs all of it as the reference does. A code may differ where a sum lies on a
// tie, hence not to the last digits; but far closer than what rounding does to the model.
TEST_P(KvPrecisionTest, RunsAMixedArtifactAsTheReferenceDoes) {
  const TinyArtifact tiny(TinyArtifact::Schemes::kMixed);
  const ModelSource source = ModelSource::Open(tiny.artifact().string());
  const ModelSource dense = ModelSource::Open(tiny.dense().string());
  const auto vocab = static_cast<int32_t>(source.spec().vocab);
  std::vector<int32_t> ids(40);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(7 * i + 3) % vocab;
  BackendRun oracle(ReferenceBackend());
  DecoderModel wanted(oracle.backend(), oracle.exec(), source, Compute::kF32);
  const auto want = RunInSteps(oracle, wanted, ids, {1000});
  DecoderModel original(oracle.backend(), oracle.exec(), dense, Compute::kF32);
  const double moved = LargestDifference(RunInSteps(oracle, original, ids, {1000}), want);
  ASSERT_GT(moved, 1e-4 * Spread(want));

  DecoderModel model(backend(), exec(), source, Compute::kF32);
  const auto got = RunInSteps(tested(), model, ids, {1000});
  EXPECT_LT(LargestDifference(got, want), 0.1 * moved);
  for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
    DecoderModel again(backend(), exec(), source, compute);
    EXPECT_EQ(RunInSteps(tested(), again, ids, {16, 1}), RunInSteps(tested(), again, ids, {1000}));
  }
}

QUANTMILL_ALL_BACKENDS(KvPrecisionTest);

TEST(KvPrecisionNames, AutoIsWhatTheArtifactSays) {
  const TinyArtifact tiny(TinyArtifact::Schemes::kMixed);
  const ModelSource source = ModelSource::Open(tiny.artifact().string());
  const KvPrecision kv = KvPrecisionNamed("auto", source);
  EXPECT_EQ(kv.scheme, source.kv_scheme());
  EXPECT_EQ(kv.scheme.type, KvScheme::Type::kFp8);
  EXPECT_EQ(KvPrecisionNamed("fp8", source), kv);
  EXPECT_EQ(Describe(kv, source), "fp8 with the artifact's scales of each head");
  EXPECT_EQ(Describe(KvPrecisionNamed("f32", source), source), "f32");

  const KvShape shape = KvShapeOf(source, kv);
  const auto heads = static_cast<size_t>(shape.kv_heads);
  ASSERT_EQ(shape.key_scales.size(), heads * source.spec().blocks.size());
  for (size_t layer = 0; layer < source.spec().blocks.size(); ++layer) {
    const KvScales scales = source.ReadKvScales(source.spec().blocks[layer]);
    for (size_t head = 0; head < heads; ++head) {
      EXPECT_EQ(shape.key_scales[layer * heads + head], scales.key[head]);
      EXPECT_EQ(shape.value_scales[layer * heads + head], scales.value[head]);
    }
  }
  // Others take none.
  EXPECT_TRUE(KvShapeOf(source, KvPrecisionNamed("int8", source)).key_scales.empty());

  const ModelSource dense = ModelSource::Open(tiny.dense().string());
  EXPECT_EQ(KvPrecisionNamed("auto", dense), KvPrecision{});
  EXPECT_EQ(Describe(KvPrecisionNamed("fp8", dense), dense), "fp8 with scales of 1");
}

}  // namespace
}  // namespace quantmill::test
