#include "quant/calib/calibration_stream.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "tests/quant/runtime/golden_model.h"

namespace quantmill::test {
namespace {

TokenWindows SomeWindows(int64_t count, int64_t length) {
  TokenWindows windows;
  windows.length = length;
  for (int64_t i = 0; i < count * length; ++i) {
    windows.ids.push_back(static_cast<int32_t>((i * i + 7 * i) % 96));
  }
  return windows;
}

// All inputs of every site of every block, in order, as raw bytes.
std::vector<std::byte> AllInputs(BackendRun& run, const ModelSource& source,
                                 const TokenWindows& windows, const StreamOptions& options) {
  CalibrationStream stream(run.backend(), run.exec(), source, windows, options);
  std::vector<std::byte> bytes;
  for (const BlockSpec& block : source.spec().blocks) {
    const BlockWeights weights =
        LoadBlock(run.backend(), run.exec(), source, block, options.compute);
    for (const Site site : kSites) {
      int64_t rows = 0;
      stream.VisitInputs(block, weights, site, [&](ConstMatrix input) {
        rows += input.rows;
        for (int64_t r = 0; r < input.rows; ++r) {
          const auto* row = static_cast<const std::byte*>(input.Rows(r, 1).data);
          bytes.insert(bytes.end(), row, row + input.cols * SizeOf(input.dtype));
        }
      });
      EXPECT_EQ(rows, windows.tokens());
      stream.Advance(block, weights, site);
    }
  }
  return bytes;
}

class CalibrationStreamTest : public testing::Test {
 protected:
  CalibrationStreamTest()
      : run_(CpuBackend(AvailableIsas().front(), 2)),
        source_(ModelSource::Open(GoldenFolder("qwen2_window"))),
        windows_(SomeWindows(5, 19)) {}

  BackendRun run_;
  ModelSource source_;
  TokenWindows windows_;
};

TEST_F(CalibrationStreamTest, ChunksAndRecomputationDoNotChangeABit) {
  StreamOptions options;
  const std::vector<std::byte> want = AllInputs(run_, source_, windows_, options);
  for (const int64_t chunk : {1, 38, 57}) {
    for (const bool keep_mlp : {false, true}) {
      for (const bool keep_attention : {false, true}) {
        options.chunk_tokens = chunk;
        options.keep_mlp = keep_mlp;
        options.keep_attention = keep_attention;
        const auto got = AllInputs(run_, source_, windows_, options);
        EXPECT_TRUE(got == want) << chunk << keep_mlp << keep_attention;
      }
    }
  }
}

// A window's activations are the same alone and among others.
TEST_F(CalibrationStreamTest, WindowsDoNotSeeEachOther) {
  StreamOptions options;
  const std::vector<std::byte> all = AllInputs(run_, source_, windows_, options);
  TokenWindows last;
  last.length = windows_.length;
  last.ids.assign(windows_.ids.end() - windows_.length, windows_.ids.end());
  const std::vector<std::byte> alone = AllInputs(run_, source_, last, options);
  // The last site's inputs of the last window are the last bytes of both.
  const auto tail = static_cast<size_t>(windows_.length * source_.spec().ffn) * sizeof(float);
  ASSERT_GE(alone.size(), tail);
  EXPECT_EQ(std::memcmp(all.data() + all.size() - tail, alone.data() + alone.size() - tail, tail),
            0);
}

TEST_F(CalibrationStreamTest, BF16StreamsCarryBF16) {
  StreamOptions options;
  options.compute = Compute::kBF16;
  const size_t bf16 = AllInputs(run_, source_, windows_, options).size();
  options.compute = Compute::kF32;
  EXPECT_EQ(AllInputs(run_, source_, windows_, options).size(), 2 * bf16);
}

std::vector<std::byte> Bytes(ConstMatrix m, int64_t first_row, int64_t rows) {
  const auto* begin = static_cast<const std::byte*>(m.Rows(first_row, rows).data);
  return {begin, begin + rows * m.cols * SizeOf(m.dtype)};
}

// A probe sees what a walk through the block sees, and changes nothing.
TEST_F(CalibrationStreamTest, ProbeSeesTheBlockWithoutAdvancing) {
  StreamOptions options;
  options.chunk_tokens = 38;  // two windows of five at a time
  CalibrationStream stream(run_.backend(), run_.exec(), source_, windows_, options);
  for (const BlockSpec& block : source_.spec().blocks) {
    const BlockWeights weights =
        LoadBlock(run_.backend(), run_.exec(), source_, block, options.compute);
    std::map<Site, std::vector<std::byte>> probed;
    int64_t keys = 0;
    int64_t outputs = 0;
    BlockVisitor visitor;
    visitor.input = [&](Site site, ConstMatrix input) {
      const auto bytes = Bytes(input, 0, input.rows);
      probed[site].insert(probed[site].end(), bytes.begin(), bytes.end());
    };
    visitor.keys_values = [&](ConstMatrix k, ConstMatrix v) {
      EXPECT_EQ(k.cols, source_.spec().kv_heads * source_.spec().head_dim);
      EXPECT_EQ(v.cols, k.cols);
      EXPECT_EQ(v.rows, k.rows);
      keys += k.rows;
    };
    visitor.output = [&](ConstMatrix output) {
      EXPECT_EQ(output.cols, source_.spec().hidden);
      outputs += output.rows;
    };
    stream.Probe(block, weights, windows_.count(), visitor);
    stream.Probe(block, weights, 1, {});
    EXPECT_EQ(keys, windows_.tokens());
    EXPECT_EQ(outputs, windows_.tokens());
    for (const Site site : kSites) {
      std::vector<std::byte> walked;
      stream.VisitInputs(block, weights, site, [&](ConstMatrix input) {
        const auto bytes = Bytes(input, 0, input.rows);
        walked.insert(walked.end(), bytes.begin(), bytes.end());
      });
      EXPECT_TRUE(probed[site] == walked) << NameOf(site);
      stream.Advance(block, weights, site);
    }
  }
}

// Two windows of five are windows 0 and 2.
TEST_F(CalibrationStreamTest, ProbedWindowsAreSpreadEvenly) {
  const BlockSpec& block = source_.spec().blocks[0];
  const BlockWeights weights =
      LoadBlock(run_.backend(), run_.exec(), source_, block, Compute::kF32);
  const auto outputs = [&](int64_t count, int64_t chunk) {
    StreamOptions options;
    options.chunk_tokens = chunk;
    CalibrationStream stream(run_.backend(), run_.exec(), source_, windows_, options);
    std::vector<std::byte> all;
    BlockVisitor visitor;
    visitor.output = [&](ConstMatrix output) {
      const auto bytes = Bytes(output, 0, output.rows);
      all.insert(all.end(), bytes.begin(), bytes.end());
    };
    stream.Probe(block, weights, count, visitor);
    return all;
  };
  const std::vector<std::byte> all = outputs(5, 1000);
  const size_t window = all.size() / 5;
  for (const int64_t chunk : {19, 38, 1000}) {
    const std::vector<std::byte> two = outputs(2, chunk);
    ASSERT_EQ(two.size(), 2 * window);
    EXPECT_EQ(std::memcmp(two.data(), all.data(), window), 0);
    EXPECT_EQ(std::memcmp(two.data() + window, all.data() + 2 * window, window), 0);
  }
}

}  // namespace
}  // namespace quantmill::test
