#include "quant/calib/calibration_stream.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>
#include <numeric>

#include "tests/quant/runtime/golden_model.h"
#include "tests/support/backends.h"
#include "tests/support/tolerance.h"

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

// What all linears of every block read, in order, as raw bytes.
std::vector<std::byte> AllInputs(BackendRun& run, const ModelSource& source,
                                 const TokenWindows& windows, const StreamOptions& options) {
  CalibrationStream stream(run.backend(), run.exec(), source, windows, options);
  std::vector<std::byte> bytes;
  for (const BlockSpec& block : source.spec().blocks) {
    const BlockWeights weights =
        LoadBlock(run.backend(), run.exec(), source, block, options.compute);
    const auto visit = [&](const SharedInput& input) {
      int64_t rows = 0;
      stream.VisitInputs(block, weights, input, [&](ConstMatrix x) {
        rows += x.rows;
        const Tensor host = run.OnHost(x);
        const auto* begin = static_cast<const std::byte*>(host.view().data);
        bytes.insert(bytes.end(), begin, begin + host.bytes());
      });
      EXPECT_EQ(rows, windows.tokens());
    };
    for (const Site site : kSites) {
      for (const SharedInput& input : block.SharedInputs()) {
        if (input.site == site) visit(input);
      }
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
  for (const char* name : {"qwen2_window", "qwen2_moe"}) {
    const ModelSource source = ModelSource::Open(GoldenFolder(name));
    StreamOptions options;
    const std::vector<std::byte> want = AllInputs(run_, source, windows_, options);
    for (const int64_t chunk : {1, 38, 57}) {
      for (const bool keep_mlp : {false, true}) {
        for (const bool keep_attention : {false, true}) {
          options.chunk_tokens = chunk;
          options.keep_mlp = keep_mlp;
          options.keep_attention = keep_attention;
          const auto got = AllInputs(run_, source, windows_, options);
          EXPECT_TRUE(got == want) << name << chunk << keep_mlp << keep_attention;
        }
      }
    }
  }
}

class ActivationMemoryTest : public BackendTest {
 protected:
  // What a probe of the first block on two of five windows ends with.
  Tensor ProbedOutput(const ModelSource& source, const TokenWindows& windows,
                      const StreamOptions& options) {
    CalibrationStream stream(backend(), exec(), source, windows, options);
    const BlockSpec& block = source.spec().blocks[0];
    const BlockWeights weights = LoadBlock(backend(), exec(), source, block, options.compute);
    Tensor all = HostTensor(DType::kF32, 2 * windows.length, source.spec().hidden);
    int64_t rows = 0;
    BlockVisitor visitor;
    visitor.output = [&](ConstMatrix output) {
      backend().Download(exec(), output, all.view().Rows(rows, output.rows));
      rows += output.rows;
    };
    stream.Probe(block, weights, 2, visitor);
    EXPECT_EQ(rows, all.rows());
    return all;
  }
};

// Five windows in chunks of two and of five; an MLP, a mixture, a residual that is pending between
// the halves of a block, norms behind.
TEST_P(ActivationMemoryTest, HostMemoryDoesNotChangeABit) {
  const TokenWindows windows = SomeWindows(5, 7);
  for (const char* name : {"qwen2_window", "qwen2_moe", "gpt_neox", "opt_350m"}) {
    const ModelSource source = ModelSource::Open(GoldenFolder(name));
    for (const bool keep : {false, true}) {
      for (const int64_t chunk : {14, 1000}) {
        StreamOptions options;
        options.chunk_tokens = chunk;
        options.keep_mlp = keep;
        options.keep_attention = keep;
        const std::vector<std::byte> want = AllInputs(tested(), source, windows, options);
        const Tensor probed = ProbedOutput(source, windows, options);
        options.activations_in_host_memory = true;
        for (const bool buffered : {false, true}) {
          options.double_buffered = buffered;
          EXPECT_TRUE(AllInputs(tested(), source, windows, options) == want)
              << name << keep << chunk << buffered;
          EXPECT_TRUE(SameBits(ProbedOutput(source, windows, options), probed))
              << name << chunk << buffered;
        }
      }
    }
  }
}

// Both streams of the asymmetric target.
TEST_P(ActivationMemoryTest, StreamsBesideEachOtherMayLieInHostMemory) {
  const ModelSource source = ModelSource::Open(GoldenFolder("gpt_neox"));
  const TokenWindows windows = SomeWindows(5, 7);
  const auto visited = [&](bool in_host_memory) {
    StreamOptions options;
    options.chunk_tokens = 14;
    options.keep_attention = false;
    options.keep_mlp = false;
    options.activations_in_host_memory = in_host_memory;
    options.double_buffered = in_host_memory;
    CalibrationStream stream(backend(), exec(), source, windows, options);
    CalibrationStream full(backend(), exec(), source, windows, options);
    std::vector<Tensor> seen;
    for (const BlockSpec& block : source.spec().blocks) {
      const BlockWeights weights = LoadBlock(backend(), exec(), source, block, options.compute);
      for (const Site site : kSites) {
        stream.VisitBeside(full, block, weights, weights, site,
                           [&](int64_t, ConstMatrix x, ConstMatrix full_x) {
                             EXPECT_TRUE(SameBits(OnHost(x), OnHost(full_x)));
                             seen.push_back(OnHost(full_x));
                           });
        stream.Advance(block, weights, site);
      }
    }
    return seen;
  };
  const std::vector<Tensor> want = visited(false);
  const std::vector<Tensor> got = visited(true);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(SameBits(got[i], want[i])) << i;
}

QUANTMILL_ALL_BACKENDS(ActivationMemoryTest);

TEST_F(CalibrationStreamTest, BytesAreOfTheMemoryThatActivationsLieIn) {
  StreamOptions options;
  const auto held = [&] {
    return CalibrationStream::HeldBytes(source_.spec(), windows_.tokens(), 19, options);
  };
  const auto on_host = [&] {
    return CalibrationStream::HostBytes(source_.spec(), windows_.tokens(), options);
  };
  const int64_t all = held();
  EXPECT_EQ(on_host(), 0);
  const int64_t scratch = CalibrationStream::ScratchBytes(source_.spec(), 19, options);
  options.activations_in_host_memory = true;
  EXPECT_EQ(held() + on_host(), all);
  EXPECT_GE(on_host(), windows_.tokens() * source_.spec().hidden * 4);
  EXPECT_GT(CalibrationStream::ScratchBytes(source_.spec(), 19, options), scratch);
  // Buffers are held; what comes from the host needs no other place then.
  const int64_t unbuffered = held();
  options.double_buffered = true;
  EXPECT_GE(held() - unbuffered, 2 * windows_.tokens() * source_.spec().hidden * 4);
  EXPECT_EQ(CalibrationStream::ScratchBytes(source_.spec(), 19, options), scratch);
}

// Every expert sees every token, whether or not the router would send it there.
TEST_F(CalibrationStreamTest, ExpertsSeeAllTokens) {
  const ModelSource source = ModelSource::Open(GoldenFolder("mixtral"));
  CalibrationStream stream(run_.backend(), run_.exec(), source, windows_, {});
  const BlockSpec& block = source.spec().blocks[0];
  const BlockWeights weights = LoadBlock(run_.backend(), run_.exec(), source, block, Compute::kF32);
  stream.Advance(block, weights, Site::kAttentionIn);
  stream.Advance(block, weights, Site::kAttentionOut);
  Tensor input;
  stream.VisitInputs(block, weights, Site::kMlpIn, [&](ConstMatrix x) { input = run_.OnHost(x); });
  ASSERT_EQ(input.rows(), windows_.tokens());
  for (int64_t e = 0; e < 4; ++e) {
    const MlpSpec& expert = block.mixture.experts[static_cast<size_t>(e)];
    const auto product = [&](const LinearSpec& linear) {
      const auto packed =
          run_.backend().PackDense(run_.exec(), source.DenseWeight(linear).view(), Compute::kF32);
      Tensor out = run_.Empty(DType::kF32, input.rows(), linear.out);
      run_.backend().MatMul(run_.exec(), input, *packed, {}, MatMulMode::kStore, out);
      return out;
    };
    const Tensor gate = product(expert.gate);
    run_.backend().GatedActivation(run_.exec(), Activation::kSilu, gate, product(expert.up), gate);
    int64_t visits = 0;
    stream.VisitInputs(block, weights, {Site::kMlpOut, e}, [&](ConstMatrix x) {
      EXPECT_TRUE(SameBits(run_.OnHost(x), run_.OnHost(gate))) << e;
      ++visits;
    });
    EXPECT_EQ(visits, 1);
  }
}

TEST_F(CalibrationStreamTest, RoutedTokensAreCounted) {
  const ModelSource source = ModelSource::Open(GoldenFolder("mixtral"));
  StreamOptions options;
  CalibrationStream stream(run_.backend(), run_.exec(), source, windows_, options);
  const BlockSpec& block = source.spec().blocks[0];
  BlockWeights weights = LoadBlock(run_.backend(), run_.exec(), source, block, Compute::kF32);
  const std::vector<int64_t> counts = stream.CountRouted(block, weights);
  ASSERT_EQ(counts.size(), 4u);
  EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), 2 * windows_.tokens());
  options.chunk_tokens = 1;
  CalibrationStream small(run_.backend(), run_.exec(), source, windows_, options);
  EXPECT_EQ(small.CountRouted(block, weights), counts);
  // A router of zeros sends everything to the first two.
  Tensor zeros = HostTensor(DType::kF32, 4, source.spec().hidden);
  std::memset(zeros.Row<float>(0), 0, static_cast<size_t>(zeros.bytes()));
  weights.routing[0].weight = run_.backend().PackDense(run_.exec(), zeros, Compute::kF32);
  EXPECT_EQ(stream.CountRouted(block, weights),
            (std::vector<int64_t>{windows_.tokens(), windows_.tokens(), 0, 0}));
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
