#include "quant/solve/scale_search.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "quant/solve/gptq.h"
#include "quant/solve/rtn.h"
#include "statistics.h"
#include "tests/support/backends.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

class ScaleSearchTest : public BackendTest {
 protected:
  double ErrorOnGrid(ConstMatrix gram, ConstMatrix weight, const QuantScheme& scheme,
                     const Grid& grid) {
    const SolveResult solved = SolveRtn(backend(), exec(), OnDevice(weight), scheme, grid);
    return Weighted(gram, ErrorOf(solved.linear, weight));
  }
};
QUANTMILL_ALL_BACKENDS(ScaleSearchTest);

// Blocks are the diagonal squares of H, completed from its upper triangle.
TEST_P(ScaleSearchTest, BlocksOfTheGramMatrix) {
  Random random(1);
  const Tensor gram = CorrelatedGram(random, 40, 100, 0.8);
  const QuantScheme scheme{.group_size = 16};
  const Tensor blocks = OnHost(GramBlocks(backend(), exec(), OnDevice(gram), scheme));
  ASSERT_EQ(blocks.cols(), 16);
  EXPECT_EQ(blocks.Row<float>(3)[5], gram.Row<float>(3)[5]);
  EXPECT_EQ(blocks.Row<float>(5)[3], gram.Row<float>(3)[5]);
  EXPECT_EQ(blocks.Row<float>(35)[1], gram.Row<float>(33)[35]);
  EXPECT_EQ(blocks.Row<float>(35)[9], 0) << "past the end of the row";
  // A row of one group is cut into blocks of 128; a group of 192 into 96, which divides it.
  const Tensor wide = OnDevice(CorrelatedGram(random, 384, 10, 0.5));
  const QuantScheme channel{.group_size = QuantScheme::kPerChannel};
  EXPECT_EQ(GramBlocks(backend(), exec(), wide, channel).cols(), 128);
  EXPECT_EQ(GramBlocks(backend(), exec(), wide, {.group_size = 192}).cols(), 96);
}

// Under the error that it minimizes the search is never worse than MinMax; on correlated inputs it
// is clearly better, and not too good to be true.
TEST_P(ScaleSearchTest, BeatsMinMaxUnderTheStatistics) {
  Random random(2);
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {true, false}) {
      const QuantScheme scheme{.bits = bits, .symmetric = symmetric, .group_size = 32};
      const Tensor gram = CorrelatedGram(random, 96, 300, 0.9);
      const Tensor weight = NormalMatrix(random, DType::kF32, 40, 96, 0.05);
      const Tensor blocks = GramBlocks(backend(), exec(), OnDevice(gram), scheme);
      const Grid searched = SearchScales(backend(), exec(), OnDevice(weight), blocks, scheme);
      const Grid smallest = MinMax(backend(), exec(), OnDevice(weight), scheme);
      const double ratio =
          ErrorOnGrid(gram, weight, scheme, searched) / ErrorOnGrid(gram, weight, scheme, smallest);
      EXPECT_LT(ratio, bits == 8 ? 0.95 : 0.85) << Describe(scheme);
      EXPECT_GT(ratio, 0.1) << Describe(scheme);
    }
  }
}

TEST_P(ScaleSearchTest, MirroredGridsServeTheLongerPositiveTail) {
  // One weight of 8 steps above, none below: -8 of a mirrored grid holds it without clamping.
  std::vector<float> weight(16);
  for (size_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<float>(i % 5);
  weight[3] = 8;
  Tensor gram = HostTensor(DType::kF32, 16, 16);
  Fill(gram, 0);
  for (int64_t i = 0; i < 16; ++i) gram.Row<float>(i)[i] = 1;
  const QuantScheme scheme{.group_size = 16};
  const Tensor blocks = GramBlocks(backend(), exec(), OnDevice(gram), scheme);
  const Tensor device = OnDevice(ViewOf(weight.data(), 1, 16));
  const Grid grid = SearchScales(backend(), exec(), device, blocks, scheme);
  EXPECT_LT(OnHost(grid.scales).Row<float>(0)[0], 0);
  EXPECT_LT(ErrorOnGrid(gram, ViewOf(weight.data(), 1, 16), scheme, grid), 1e-3);
}

// Scales of 8-bit floats: NVFP4 with a global scale that layers may share, MXFP4 in powers of two.
TEST_P(ScaleSearchTest, ScalesAreStorable) {
  Random random(3);
  const Tensor gram = CorrelatedGram(random, 64, 200, 0.9);
  const Tensor weight = NormalMatrix(random, DType::kF32, 20, 64, 0.05);
  const Tensor device = OnDevice(weight);
  const std::vector<QuantScheme> schemes = {
      {.group_size = 16, .scale_dtype = DType::kF8E4M3, .code_type = CodeType::kFp4},
      {.group_size = 32, .scale_dtype = DType::kF8E8M0, .code_type = CodeType::kFp4},
      {.group_size = 32, .code_type = CodeType::kIq4Nl},
      {.bits = 8,
       .group_size = QuantScheme::kPerChannel,
       .scale_dtype = DType::kF32,
       .code_type = CodeType::kFp8}};
  for (const QuantScheme& scheme : schemes) {
    const Tensor blocks = GramBlocks(backend(), exec(), OnDevice(gram), scheme);
    const Grid searched = SearchScales(backend(), exec(), device, blocks, scheme);
    const Grid smallest = MinMax(backend(), exec(), device, scheme);
    const SolveResult solved = SolveRtn(backend(), exec(), device, scheme, searched);
    for (const float scale : solved.linear.scales) {
      EXPECT_EQ(RoundTo(scheme.scale_dtype, scale), scale) << Describe(scheme);
    }
    // What a reader computes from the stored scales is what the solver used.
    for (int64_t o = 0; o < 20; ++o) {
      for (int64_t g = 0; g < solved.linear.groups(); ++g) {
        EXPECT_EQ(solved.linear.EffectiveScale(o, g), OnHost(searched.scales).Row<float>(o)[g]);
      }
    }
    EXPECT_LE(ErrorOnGrid(gram, weight, scheme, searched),
              1.01 * ErrorOnGrid(gram, weight, scheme, smallest))
        << Describe(scheme);
  }
  const float shared = GlobalScaleFor(2 * AbsMax(backend(), exec(), device));
  EXPECT_EQ(MinMax(backend(), exec(), device, schemes[0], shared).global_scale, shared);
  EXPECT_FLOAT_EQ(GlobalScaleFor(6), 448);
  EXPECT_EQ(GlobalScaleFor(0), 1);
}

// Rows of a block share the largest of their scales; nothing is searched there.
TEST_P(ScaleSearchTest, SharedScales) {
  Random random(4);
  const Tensor weight = NormalMatrix(random, DType::kF32, 5, 8, 1);
  std::fill_n(weight.Row<float>(4), 8, 0.0f);
  QuantScheme scheme{.bits = 8,
                     .group_size = 4,
                     .scale_dtype = DType::kF32,
                     .code_type = CodeType::kFp8,
                     .row_block = 3};
  const auto largest = [&](int64_t first, int64_t last, int64_t begin, int64_t end) {
    float x = 0;
    for (int64_t r = first; r < last; ++r) {
      for (int64_t i = begin; i < end; ++i) x = std::max(x, std::abs(weight.Row<float>(r)[i]));
    }
    return x;
  };
  Tensor scales = OnHost(MinMax(backend(), exec(), OnDevice(weight), scheme).scales);
  EXPECT_EQ(scales.Row<float>(0)[1], largest(0, 3, 4, 8) / 448);
  EXPECT_EQ(scales.Row<float>(2)[1], scales.Row<float>(0)[1]);
  EXPECT_EQ(scales.Row<float>(4)[0], largest(3, 5, 0, 4) / 448);
  EXPECT_FALSE(SearchesScales(scheme));
  scheme.row_block = QuantScheme::kAllRows;
  scheme.group_size = QuantScheme::kPerChannel;
  scales = OnHost(MinMax(backend(), exec(), OnDevice(weight), scheme).scales);
  EXPECT_EQ(scales.cols(), 1);
  EXPECT_EQ(scales.Row<float>(4)[0], largest(0, 5, 0, 8) / 448);
}

}  // namespace
}  // namespace quantmill::test
