// A folding changes no output: every golden family, with random scales at every site.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/quant/runtime/golden_model.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

// Powers of two for layer norms, whose biases other scales round to F16, and where a router reads
// the input, which stays dense.
std::vector<BF16> RandomScales(Random& random, const DecoderSpec& spec, const BlockSpec& block,
                               const SharedInput& input) {
  const bool routes = input.site == Site::kMlpIn && block.is_mixture();
  std::vector<BF16> scales;
  for (int64_t i = 0; i < FoldedWidth(spec, block, input); ++i) {
    double exponent = random.Uniform(-3, 3);
    if (spec.norm == NormKind::kLayer || routes) exponent = std::round(exponent);
    scales.push_back(ToBF16(static_cast<float>(std::exp2(exponent))));
  }
  return scales;
}

BlockFolding RandomFolding(Random& random, const DecoderSpec& spec, const BlockSpec& block) {
  BlockFolding folding;
  for (const SharedInput& input : block.SharedInputs()) {
    if (!IsFoldable(spec, block, input)) continue;
    folding.at(input) = RandomScales(random, spec, block, input);
  }
  return folding;
}

// Residual stream behind the last block, [tokens, hidden]; `load` makes each block's weights.
template <typename Load>
std::vector<float> Hidden(BackendRun& run, const ModelSource& source, const Load& load) {
  const DecoderSpec& spec = source.spec();
  std::vector<int32_t> ids(37);
  for (size_t i = 0; i < ids.size(); ++i) {
    ids[i] = static_cast<int32_t>((i * i + 5 * i) % static_cast<size_t>(spec.vocab));
  }
  const auto tokens = std::ssize(ids);
  Tensor residual = run.Empty(DType::kF32, tokens, spec.hidden);
  KvCache cache(run.backend(), run.exec(), {spec.layers(), 4, spec.kv_heads, spec.head_dim});
  KvSequence sequence(cache);
  const SequenceStep step = sequence.Append(tokens, 0);
  const auto plan = run.backend().PlanBatch(run.exec(), {&step, 1});
  Embedding(run.backend(), run.exec(), source, Compute::kF32).Run(*plan, ids, residual);
  BlockForward forward(run.backend(), run.exec(), spec, Compute::kF32);
  for (int64_t layer = 0; layer < spec.layers(); ++layer) {
    const BlockSpec& block = spec.blocks[static_cast<size_t>(layer)];
    const BlockWeights weights = load(block);
    forward.Run(block, weights, {*plan, layer, cache.store()}, residual);
  }
  std::vector<float> hidden(static_cast<size_t>(tokens * spec.hidden));
  run.backend().Download(run.exec(), residual, MutableViewOf(hidden.data(), tokens, spec.hidden));
  return hidden;
}

double LargestMagnitude(const std::vector<float>& x) {
  return LargestDifference(x, std::vector<float>(x.size()));
}

class FoldingGolden : public testing::TestWithParam<const char*> {
 protected:
  FoldingGolden()
      : run_(CpuBackend(AvailableIsas().front(), 1)),
        source_(ModelSource::Open(GoldenFolder(GetParam()))) {}

  BlockWeights Load(const BlockSource& source) {
    return LoadBlock(run_.backend(), run_.exec(), source, Compute::kF32);
  }

  BackendRun run_;
  ModelSource source_;
};

// A folded weight and gain carry four more roundings (multiplied, divided, the effective scale, the
// gain's product): 4 * 2^-24 = 2.4e-7 relative in every term of every sum. Two blocks in a row and
// the norms between them let that grow; 1e-5 of the largest value is forty times it, and a
// thousandth of what one wrong scale does (below).
constexpr double kTolerance = 1e-5;

TEST_P(FoldingGolden, OutputIsUnchanged) {
  Random random(3);
  const auto plain = Hidden(
      run_, source_, [&](const BlockSpec& block) { return Load(BlockSource(source_, block)); });
  const auto folded = Hidden(run_, source_, [&](const BlockSpec& block) {
    return Load(BlockSource(source_, block, RandomFolding(random, source_.spec(), block)));
  });
  EXPECT_LT(LargestDifference(folded, plain), kTolerance * LargestMagnitude(plain));
}

// Each site alone: leaving out what compensates its scales is seen.
TEST_P(FoldingGolden, EverySiteNeedsItsProducer) {
  const auto plain = Hidden(
      run_, source_, [&](const BlockSpec& block) { return Load(BlockSource(source_, block)); });
  for (const Site site : kSites) {
    bool any = false;
    Random random(4);
    const auto half = Hidden(run_, source_, [&](const BlockSpec& block) {
      BlockWeights weights = Load(BlockSource(source_, block));
      for (const SharedInput& input : block.SharedInputs()) {
        if (input.site != site || !IsFoldable(source_.spec(), block, input)) continue;
        any = true;
        BlockFolding folding;
        folding.at(input) = RandomScales(random, source_.spec(), block, input);
        const BlockSource source(source_, block, folding);
        for (const LinearSpec* linear : block.LinearsAt(input)) {
          EXPECT_TRUE(source.Folds(*linear));
          weights.linears[BlockWeights::IndexOf(block, *linear)] = LinearWeights{
              run_.backend().PackDense(run_.exec(), source.Weight(*linear), Compute::kF32),
              linear->bias ? run_.OnDevice(source.Vector(linear->name + ".bias")) : Tensor()};
        }
      }
      return weights;
    });
    if (!any) continue;
    EXPECT_GT(LargestDifference(half, plain), 100 * kTolerance * LargestMagnitude(plain))
        << NameOf(site);
  }
}

// The norm before a mixture is divided for the router as well, or tokens would go elsewhere.
TEST(FoldingGoldenMixture, RouterIsFoldedExactly) {
  BackendRun run(CpuBackend(AvailableIsas().front(), 1));
  const ModelSource source = ModelSource::Open(GoldenFolder("qwen2_moe"));
  const auto load = [&](const BlockSource& from) {
    return LoadBlock(run.backend(), run.exec(), from, Compute::kF32);
  };
  const auto plain =
      Hidden(run, source, [&](const BlockSpec& block) { return load(BlockSource(source, block)); });
  Random random(5);
  const auto half = Hidden(run, source, [&](const BlockSpec& block) {
    BlockFolding folding;
    folding.at(Site::kMlpIn) = RandomScales(random, source.spec(), block, Site::kMlpIn);
    BlockWeights weights = load(BlockSource(source, block, folding));
    weights.routing = load(BlockSource(source, block)).routing;
    return weights;
  });
  EXPECT_GT(LargestDifference(half, plain), 100 * kTolerance * LargestMagnitude(plain));

  const BlockSpec& block = source.spec().blocks[1];
  BlockFolding folding;
  folding.at(Site::kMlpIn) = RandomScales(random, source.spec(), block, Site::kMlpIn);
  const BlockSource folded(source, block, folding);
  for (const LinearSpec* linear : block.RoutingLinears()) {
    const std::string tensor = linear->name + ".weight";
    ASSERT_TRUE(folded.changed_tensors().contains(tensor));
    EXPECT_EQ(folded.StoredTensor(tensor).size(), source.checkpoint().Bytes(tensor).size());
    const DenseMatrix stored_weight = source.DenseWeight(*linear);
    const Tensor weight = folded.Weight(*linear);
    std::vector<float> row(static_cast<size_t>(linear->in));
    for (int64_t o = 0; o < linear->out; ++o) {
      WidenRow(stored_weight, o, row.data());
      for (int64_t i = 0; i < linear->in; ++i) {
        const auto at = static_cast<size_t>(i);
        EXPECT_EQ(weight.Row<float>(o)[i], row[at] * ToFloat(folding.at(Site::kMlpIn)[at]));
      }
    }
  }
}

TEST_P(FoldingGolden, WithoutScalesNothingChanges) {
  for (const BlockSpec& block : source_.spec().blocks) {
    const BlockSource source(source_, block);
    EXPECT_TRUE(source.changed_tensors().empty());
    for (const LinearSpec* linear : block.Linears()) {
      EXPECT_FALSE(source.Folds(*linear));
      const Tensor weight = source.Weight(*linear);
      const DenseMatrix stored = source_.DenseWeight(*linear);
      std::vector<float> row(static_cast<size_t>(linear->in));
      for (int64_t o = 0; o < linear->out; ++o) {
        WidenRow(stored, o, row.data());
        ASSERT_EQ(std::memcmp(row.data(), weight.Row<float>(o), row.size() * sizeof(float)), 0);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Families, FoldingGolden,
                         testing::Values("llama_gqa", "llama_mha_tied_bias", "llama_mqa",
                                         "mistral_window", "qwen2", "qwen3", "phi3", "gemma2",
                                         "gemma3", "opt", "opt_350m", "gpt2", "gpt_neox",
                                         "falcon_7b", "falcon_40b", "falcon_rw", "bloom", "mixtral",
                                         "qwen2_moe", "qwen3_moe"),
                         [](const auto& family) { return std::string(family.param); });

}  // namespace
}  // namespace quantmill::test
