// Attention on tensor cores: the tiling of every architecture, and the kernel in each of them.
#include "kernels/cuda/attention_mma.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/support/attention_batch.h"

namespace quantmill::cuda_host {
namespace {

using test::Batch;

TEST(MmaTiling, IsAsBigAsTwoBlocksOfAnArchitectureMayBe) {
  EXPECT_EQ(ChooseMmaTiling(128, 90, false), (MmaTiling{128, 2, 64, 4}));
  EXPECT_EQ(ChooseMmaTiling(128, 80, false), (MmaTiling{128, 1, 64, 4}));
  EXPECT_EQ(ChooseMmaTiling(128, 86, false), (MmaTiling{128, 1, 32, 4}));
  EXPECT_EQ(ChooseMmaTiling(64, 86, false), (MmaTiling{64, 2, 64, 4}));
  EXPECT_EQ(ChooseMmaTiling(256, 90, false), (MmaTiling{256, 1, 32, 4}));
  EXPECT_EQ(ChooseMmaTiling(128, 90, true), (MmaTiling{128, 1, 64, 1}));
}

// Llama, Qwen, Mistral: 64, 128; Phi: 80, 96; Gemma: 256; Falcon, Bloom, MPT, GPT-2: 64 to 128.
TEST(MmaTiling, FitsTheHeadsOfEveryFamily) {
  for (const int capability : {80, 86, 87, 89, 90, 100, 120, 130}) {
    for (const int head_dim : {8, 32, 64, 72, 80, 96, 112, 128, 160, 192, 256}) {
      for (const bool few_rows : {false, true}) {
        const auto tiling = ChooseMmaTiling(head_dim, capability, few_rows);
        ASSERT_TRUE(tiling);
        EXPECT_GE(tiling->dims, head_dim);
        EXPECT_LE(tiling->shared_bytes() + 1024, SharedMemoryOfSm(capability));
        EXPECT_TRUE(IsMmaTilingChosen(*tiling)) << head_dim << " on " << capability;
        // A row visits the same tiles in prefill and in decode.
        EXPECT_EQ(tiling->keys, ChooseMmaTiling(head_dim, capability, !few_rows)->keys);
      }
    }
    for (const int head_dim : {0, 20, 100, 257, 264, 512}) {
      EXPECT_FALSE(ChooseMmaTiling(head_dim, capability, false)) << head_dim;
    }
  }
}

// The whole batch at once, by the kernel of `tiling`.
Tensor RunWith(const MmaTiling& tiling, test::BackendRun& run, const Batch& batch) {
  const auto store = test::NewStore(run.backend(), run.exec(), batch);
  test::Poison(run.backend(), run.exec(), *store);
  std::vector<SequenceStep> steps;
  for (size_t s = 0; s < batch.lengths.size(); ++s) {
    steps.push_back({batch.Row(s, 0), batch.lengths[s], 0, batch.tables[s]});
  }
  const auto plan = run.backend().PlanBatch(run.exec(), steps);
  run.backend().AppendKv(run.exec(), *plan, 0, run.OnDevice(batch.k), run.OnDevice(batch.v),
                         *store);
  const Tensor queries = run.OnDevice(batch.q);
  const Tensor out = run.Empty(DType::kBF16, batch.tokens(), batch.q.cols());
  const AttentionParams& params = batch.params;
  const ScoreShape scores{params.scale * kLog2E, 0, nullptr,
                          static_cast<int>(params.sliding_window)};
  const AttentionArguments arguments{nullptr, PlanOf(*plan).arrays(),
                                     static_cast<const CudaKvStore&>(*store).Layer(0), scores,
                                     static_cast<int>(params.heads / params.kv_heads)};
  MmaAttention(run.exec(), PlanOf(*plan), arguments, tiling, In<float>(queries), Out<BF16>(out));
  return run.OnHost(out);
}

TEST(MmaAttention, EveryTilingMatchesTheReference) {
  test::BackendRun reference(ReferenceBackend());
  test::BackendRun host(OpenCuda(1));
  for (const int head_dim : {64, 80, 128, 256}) {
    Batch batch = test::MakeBatch(static_cast<uint64_t>(head_dim), test::Heads(3, 1, head_dim),
                                  {1, 70, 0, 131}, DType::kBF16);
    batch.params.sliding_window = 90;
    const auto store = test::NewStore(reference.backend(), reference.exec(), batch);
    const Tensor want =
        test::RunOn(reference.backend(), reference.exec(), batch, test::AtOnce(batch), *store);
    batch.out = DType::kBF16;
    const Tensor bounds = test::Bounds(batch);
    const auto bound = [&](int64_t r, int64_t c, double) { return bounds.Row<double>(r)[c]; };
    for (const int capability : {80, 86, 90}) {
      SCOPED_TRACE("head_dim " + std::to_string(head_dim) + " on " + std::to_string(capability));
      const Tensor prefill = RunWith(*ChooseMmaTiling(head_dim, capability, false), host, batch);
      EXPECT_TRUE(test::Within(prefill, want, bound));
      // Decode's kernel, of all rows at once: the same bits.
      const Tensor decode = RunWith(*ChooseMmaTiling(head_dim, capability, true), host, batch);
      EXPECT_TRUE(test::SameBits(decode, prefill));
    }
  }
}

}  // namespace
}  // namespace quantmill::cuda_host
