// Memory of every backend, and how a backend is chosen.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

class MemoryTest : public BackendTest {};

TEST_P(MemoryTest, UploadAndDownloadConvert) {
  Random random(3);
  const DType types[] = {DType::kF32, DType::kF16, DType::kBF16};
  for (const DType from : types) {
    for (const DType to : types) {
      for (const int64_t cols : {0, 1, 37}) {
        const Tensor host = NormalMatrix(random, from, 5, cols, 100);
        const Tensor device = Empty(to, 5, cols);
        backend().Upload(exec(), host, device);
        const Tensor converted = OnHost(device);
        EXPECT_TRUE(SameBits(converted, Converted(host, to)));
        const Tensor back = HostTensor(from, 5, cols);
        backend().Download(exec(), device, back);
        EXPECT_TRUE(SameBits(back, Converted(converted, from)));
      }
    }
  }
}

TEST_P(MemoryTest, StridedUploadAndZero) {
  Random random(4);
  const Tensor host = NormalMatrix(random, DType::kF32, 6, 10);
  const Tensor device = OnDevice(host);
  backend().Zero(exec(), device.view().Rows(1, 4).Cols(2, 5));
  backend().Upload(exec(), host.view().Rows(0, 1).Cols(0, 3), device.view().Rows(2, 1).Cols(3, 3));
  const Tensor got = OnHost(device);
  for (int64_t r = 0; r < 6; ++r) {
    for (int64_t c = 0; c < 10; ++c) {
      double want = At(host, r, c);
      if (r >= 1 && r < 5 && c >= 2 && c < 7) want = 0;
      if (r == 2 && c >= 3 && c < 6) want = At(host, 0, c - 3);
      EXPECT_EQ(At(got, r, c), want) << r << ", " << c;
    }
  }
}

// More than passes through page-locked memory at once, by whole rows and by parts of rows; and what
// is uploaded may be overwritten when the call returns.
TEST_P(MemoryTest, UploadsInPieces) {
  Random random(5);
  for (const auto& [rows, cols] : {std::pair{70, 33}, {3, 5000}, {1, 9001}}) {
    const Tensor host = NormalMatrix(random, DType::kF32, rows, cols + 7);
    const Tensor kept = Converted(host, DType::kF32);
    const Tensor device = Empty(DType::kF32, rows, cols + 3);
    backend().Zero(exec(), device);
    backend().Upload(exec(), host.view().Cols(5, cols), device.view().Cols(2, cols));
    exec().stream.Synchronize();
    Fill(host, 0);
    const Tensor got = OnHost(device);
    EXPECT_TRUE(SameBits(got.view().Cols(2, cols), kept.view().Cols(5, cols)));
    for (int64_t r = 0; r < rows; ++r) {
      EXPECT_EQ(At(got, r, 1), 0);
      EXPECT_EQ(At(got, r, cols + 2), 0);
    }
    const auto packed = backend().PackDense(exec(), kept, Compute::kF32);
    Tensor y = Empty(DType::kF32, 1, rows);
    Tensor ones = HostTensor(DType::kF32, 1, cols + 7);
    Fill(ones, 0);
    ones.Row<float>(0)[cols] = 1;
    backend().MatMul(exec(), OnDevice(ones), *packed, {}, MatMulMode::kStore, y);
    const Tensor column = OnHost(y);
    for (int64_t r = 0; r < rows; ++r) EXPECT_EQ(At(column, 0, r), At(kept, r, cols));
  }
}

TEST_P(MemoryTest, CopiesOtherTypesExactly) {
  const std::vector<int32_t> values = {-5, 1 << 30, 0, 7};
  const Tensor device = OnDevice(ViewOf(values.data(), 2, 2));
  EXPECT_TRUE(SameBits(OnHost(device), ViewOf(values.data(), 2, 2)));
}

TEST_P(MemoryTest, ALimitOnADevicesMemoryIsKept) {
  const bool on_device = backend().Info().memory > 0;
  const int64_t before = backend().PeakMemory();
  const Tensor kept = Empty(DType::kF32, 100, 100);
  EXPECT_EQ(backend().PeakMemory() - before, on_device ? kept.bytes() : 0);
  backend().LimitMemory(before + 2 * kept.bytes());
  { const Tensor again = Empty(DType::kF32, 100, 100); }  // given back
  const Tensor full = Empty(DType::kF32, 100, 100);
  const auto one_more = [&] { Empty(DType::kI8, 1, 1); };
  if (!on_device) {
    one_more();
    EXPECT_EQ(backend().PeakMemory(), 0);
    return;
  }
  try {
    one_more();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kEnvironment);
    EXPECT_EQ(error.where(), "--max-gpu-mem");
  }
  EXPECT_EQ(backend().PeakMemory(), before + 2 * kept.bytes());
  backend().LimitMemory(0);
  one_more();
}

// Rounds of: host to device on one stream, an op on another, device to host on a third. Host memory
// is written and read by the copies alone until the end.
TEST_P(MemoryTest, CopiesOnStreamsOfTheirOwnAreOrdered) {
  constexpr int64_t kRounds = 8;
  constexpr int64_t kRows = 100;
  constexpr int64_t kCols = 1000;
  OwnExec in(backend());
  OwnExec out(backend());
  const Tensor host = backend().EmptyOnHost(DType::kF32, kRounds * kRows, kCols);
  for (int64_t r = 0; r < host.rows(); ++r) {
    std::fill_n(host.Row<float>(r), kCols, static_cast<float>(r));
  }
  const Tensor here[] = {Empty(DType::kF32, kRows, kCols), Empty(DType::kF32, kRows, kCols)};
  for (int64_t round = 0; round < kRounds; ++round) {
    const Matrix rows = here[round % 2];
    in.stream().RunAfter(out.stream());
    backend().Upload(in.exec(), host.view().Rows(round * kRows, kRows), rows);
    exec().stream.RunAfter(in.stream());
    backend().SoftCap(exec(), 1000, rows);
    out.stream().RunAfter(exec().stream);
    backend().DownloadLater(out.exec(), rows, host.view().Rows(round * kRows, kRows));
  }
  out.stream().Synchronize();
  for (int64_t r = 0; r < host.rows(); ++r) {
    EXPECT_NEAR(host.Row<float>(r)[kCols - 1], 1000 * std::tanh(static_cast<double>(r) / 1000), 0.1)
        << r;
  }
}

// What one stream still works on is not yet another's, though its tensor is gone.
TEST_P(MemoryTest, MemoryGoesFromOneStreamToAnother) {
  constexpr int64_t kSize = 512;
  OwnExec other(backend());
  const Tensor ones = HostTensor(DType::kF32, kSize, kSize);
  for (int64_t r = 0; r < kSize; ++r) std::fill_n(ones.Row<float>(r), kSize, 1.0f);
  for (int round = 0; round < 8; ++round) {
    {
      const Tensor left = Empty(DType::kF32, kSize, kSize);
      for (int i = 0; i < 16; ++i) backend().Zero(exec(), left);
    }
    const Tensor taken = Empty(DType::kF32, kSize, kSize);
    backend().Upload(other.exec(), ones, taken);
    other.stream().Synchronize();
    EXPECT_TRUE(SameBits(OnHost(taken), ones)) << round;
  }
}

QUANTMILL_ALL_BACKENDS(MemoryTest);

ErrorCode CodeOf(const std::string& device) {
  try {
    SelectBackend(device, 1);
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::kInterrupted;  // no error
}

class SelectTest : public testing::Test {
 protected:
  void TearDown() override { unsetenv("QUANTMILL_ISA"); }
};

TEST_F(SelectTest, UnknownNamesAreUsageErrors) {
  EXPECT_EQ(CodeOf("tpu"), ErrorCode::kUsage);
  setenv("QUANTMILL_ISA", "mmx", 1);
  EXPECT_EQ(CodeOf("cpu"), ErrorCode::kUsage);
}

TEST_F(SelectTest, TheEnvironmentForcesAnInstructionSet) {
  for (const std::string& isa : AvailableIsas()) {
    setenv("QUANTMILL_ISA", isa.c_str(), 1);
    const BackendInfo info = SelectBackend("cpu", 3)->Info();
    EXPECT_EQ(info.isa, isa);
    EXPECT_EQ(info.threads, 3);
    EXPECT_EQ(info.compute_bf16, isa == "avx512_bf16" || isa == "amx");
  }
}

TEST_F(SelectTest, ABackendThatIsNotHereIsAnEnvironmentError) {
  if (BuiltBackends() != std::vector<std::string>{"cpu"}) GTEST_SKIP() << "built with CUDA";
  EXPECT_EQ(CodeOf("cuda"), ErrorCode::kEnvironment);
}

TEST_F(SelectTest, DefaultsToTheBestInstructionSet) {
  EXPECT_EQ(SelectBackend("auto", 0)->Info().isa, AvailableIsas().front());
  EXPECT_THAT(AvailableIsas(), testing::Contains("generic"));
  EXPECT_EQ(ReferenceBackend()->Info().name, "reference");
}

}  // namespace
}  // namespace quantmill::test
