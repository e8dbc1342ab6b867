// The choice of input scales on the sample model of calib_data. Tests run in the source root.
#include "quant/pipeline/fold_block.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "kernels/select.h"
#include "quant/pipeline/schemes.h"
#include "tests/support/backends.h"

namespace quantmill::test {
namespace {

constexpr const char* kSample = "calib_data/sample_model";

class FoldBlockTest : public testing::Test {
 protected:
  FoldBlockTest() : source_(ModelSource::Open(kSample)) {
    windows_.length = 64;
    for (int64_t i = 0; i < 16 * windows_.length; ++i) {
      windows_.ids.push_back(static_cast<int32_t>((i * i + 11 * i) % source_.spec().vocab));
    }
  }

  static Recipe RecipeFor(Transform transform, const std::string& scheme) {
    Recipe recipe;
    recipe.transform = transform;
    recipe.method = Method::kRtn;
    SchemeChoice choice = ParseScheme(scheme, "test");
    if (scheme == "w4a16") choice.group_size = 64;
    recipe.scheme = MakeScheme(choice, "test");
    recipe.calibration.samples = windows_count();
    recipe.calibration.sequence_length = 64;
    recipe.compute = Compute::kF32;
    return recipe;
  }
  static int64_t windows_count() { return 16; }

  BlockFolding Choose(const Recipe& recipe, int threads = 2) {
    BackendRun run(CpuBackend(AvailableIsas().front(), threads));
    const QuantizePlan plan = PlanQuantization(source_, recipe, run.backend().Info());
    CalibrationStream stream(run.backend(), run.exec(), source_, windows_, plan.stream);
    events_.clear();
    return ChooseFolding(run.backend(), run.exec(), source_, source_.spec().blocks[0], stream, plan,
                         events_);
  }
  // Sites of which an event says that their scales were not folded.
  int64_t KeptIdentity() const {
    return std::count_if(events_.begin(), events_.end(),
                         [](const Event& e) { return e.kind == "folding_kept_identity"; });
  }
  static int64_t Folded(const BlockFolding& folding) {
    return std::count_if(kSites.begin(), kSites.end(),
                         [&](Site site) { return !folding.at(site).empty(); });
  }

  ModelSource source_;
  TokenWindows windows_;
  std::vector<Event> events_;
};

TEST_F(FoldBlockTest, AwqFoldsAndEachSiteIsFoldedOrExplained) {
  const BlockFolding folding = Choose(RecipeFor(Transform::kAwq, "w4a16"));
  EXPECT_GT(Folded(folding), 0);
  for (const Site site : kSites) {
    if (folding.at(site).empty()) continue;
    EXPECT_EQ(std::ssize(folding.at(site)),
              FoldedWidth(source_.spec(), source_.spec().blocks[0], site));
  }
}

TEST_F(FoldBlockTest, SameScalesForAnyNumberOfThreads) {
  const Recipe recipe = RecipeFor(Transform::kAwq, "w4a16");
  EXPECT_EQ(Choose(recipe, 1), Choose(recipe, 3));
}

TEST_F(FoldBlockTest, WithoutATransformNothingIsFolded) {
  EXPECT_TRUE(Choose(RecipeFor(Transform::kNone, "w4a16")).identity());
  EXPECT_TRUE(events_.empty());
}

// A planted mistake: an exponent past 1 moves more than the inputs' range into the weights. What
// hurts is not folded.
TEST_F(FoldBlockTest, SmoothingThatHurtsIsNotKept) {
  Recipe recipe = RecipeFor(Transform::kSmoothQuant, "w8a8");
  recipe.smoothing_alpha = 4;
  const BlockFolding folding = Choose(recipe);
  EXPECT_GT(KeptIdentity(), 0);
  EXPECT_EQ(KeptIdentity() + Folded(folding), std::ssize(kSites));
}

TEST_F(FoldBlockTest, BalancedSmoothingIsKept) {
  const BlockFolding folding = Choose(RecipeFor(Transform::kSmoothQuant, "w8a8"));
  EXPECT_GT(Folded(folding), 1);
}

// A dense value projection is written as it is: it can take neither columns nor rows.
TEST_F(FoldBlockTest, SitesWithDenseLayersAreLeftAlone) {
  Recipe recipe = RecipeFor(Transform::kAwq, "w4a16");
  recipe.rules.push_back({".*self_attn\\.[qkv]_proj", std::nullopt, "test"});
  const BlockFolding folding = Choose(recipe);
  EXPECT_TRUE(folding.at(Site::kAttentionIn).empty());
  EXPECT_TRUE(folding.at(Site::kAttentionOut).empty());
  EXPECT_GT(Folded(folding), 0);
}

}  // namespace
}  // namespace quantmill::test
