#include "tools/progress.h"

#include <gtest/gtest.h>

#include <string>

#include "quant/report/layout.h"

namespace quantmill {
namespace {

TEST(ProgressTest, ShowsPhaseBarTimesRateAndMemory) {
  const ProgressState state{"quantizing", 30, 120, 5432.1, "model.layers.7.mlp.down_proj"};
  EXPECT_EQ(RenderProgress(state, 12, 812'000'000, 120),
            "quantizing [###---------] 30/120  0:12, 0:36 left  5,432 tok/s  812.0 MB  "
            "model.layers.7.mlp.down_proj");
}

TEST(ProgressTest, LeavesOutWhatIsNotKnown) {
  EXPECT_EQ(RenderProgress({"verifying", 0, 10, 0, ""}, 0.2, 0, 80),
            "verifying [------------] 0/10  0:00");
  EXPECT_EQ(RenderProgress({"verifying", 0, 0, 0, ""}, 0, 0, 80),
            "verifying [------------] 0/0  0:00");
  EXPECT_EQ(RenderProgress({"verifying", 10, 10, 0, ""}, 3, 0, 80),
            "verifying [############] 10/10  0:03");
}

TEST(ProgressTest, NeverWiderThanTheTerminal) {
  const ProgressState state{"quantizing", 1, 3, 99999, "model.layers.7.\x1b[2Jmlp.down_proj"};
  for (size_t columns = 0; columns < 200; ++columns) {
    const std::string line = RenderProgress(state, 4000, 99'000'000'000, columns);
    EXPECT_LE(DisplayWidth(line), columns);
    EXPECT_EQ(line.find('\x1b'), std::string::npos);
  }
}

}  // namespace
}  // namespace quantmill
