// A folding changes no output: every golden family, with random scales at every site.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/quant/runtime/golden_model.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

// Powers of two for layer norms, whose biases other scales round to F16.
std::vector<BF16> RandomScales(Random& random, const DecoderSpec& spec, Site site) {
  std::vector<BF16> scales;
  for (int64_t i = 0; i < FoldedWidth(spec, site); ++i) {
    double exponent = random.Uniform(-3, 3);
    if (spec.norm == NormKind::kLayer) exponent = std::round(exponent);
    scales.push_back(ToBF16(static_cast<float>(std::exp2(exponent))));
  }
  return scales;
}

BlockFolding RandomFolding(Random& random, const DecoderSpec& spec, const BlockSpec& block) {
  BlockFolding folding;
  for (const Site site : kSites) {
    if (IsFoldable(spec, block, site)) folding.at(site) = RandomScales(random, spec, site);
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
    if (!IsFoldable(source_.spec(), source_.spec().blocks[0], site)) continue;
    Random random(4);
    const auto half = Hidden(run_, source_, [&](const BlockSpec& block) {
      BlockFolding folding;
      folding.at(site) = RandomScales(random, source_.spec(), site);
      BlockWeights weights = Load(BlockSource(source_, block));
      const BlockSource source(source_, block, folding);
      for (const LinearSpec* linear : block.LinearsAt(site)) {
        EXPECT_TRUE(source.Folds(*linear));
        weights.linears[BlockWeights::IndexOf(block, *linear)] = LinearWeights{
            run_.backend().PackDense(run_.exec(), source.Weight(*linear), Compute::kF32),
            linear->bias ? run_.OnDevice(source.Vector(linear->name + ".bias")) : Tensor()};
      }
      return weights;
    });
    EXPECT_GT(LargestDifference(half, plain), 100 * kTolerance * LargestMagnitude(plain))
        << NameOf(site);
  }
}

TEST_P(FoldingGolden, WithoutScalesNothingChanges) {
  for (const BlockSpec& block : source_.spec().blocks) {
    const BlockSource source(source_, block);
    EXPECT_TRUE(source.changed_vectors().empty());
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
                                         "falcon_7b", "falcon_40b", "falcon_rw", "bloom"),
                         [](const auto& family) { return std::string(family.param); });

}  // namespace
}  // namespace quantmill::test
