// Attention on the paged cache of floats, on every backend against the reference.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/attention_batch.h"

namespace quantmill::test {
namespace {

class AttentionTest : public AttentionBackendTest {};

// 0, 1, and one beside each boundary of a block and of a tile of keys.
const std::vector<int64_t> kLengths = {0, 1, 15, 16, 17, 31, 33, 0, 63, 64, 65, 130};

TEST_P(AttentionTest, MatchesReference) {
  for (const int64_t head_dim : {32, 64, 80, 96, 128, 256, 20}) {
    SCOPED_TRACE("head_dim " + std::to_string(head_dim));
    ExpectMatchesReference(
        MakeBatch(static_cast<uint64_t>(head_dim), Heads(6, 2, head_dim), {0, 1, 17, 64, 0, 130}));
  }
  for (const auto& [heads, kv_heads] : {std::pair{3, 3}, {9, 3}, {4, 1}, {14, 2}}) {
    SCOPED_TRACE("heads " + std::to_string(heads) + " over " + std::to_string(kv_heads));
    ExpectMatchesReference(
        MakeBatch(static_cast<uint64_t>(heads), Heads(heads, kv_heads, 64), kLengths));
  }
}

// Long heads, and more query heads of a kv head than a tile of rows may hold.
TEST_P(AttentionTest, UnusualShapes) {
  const std::vector<int64_t> head_dims =
      IsSlow() ? std::vector<int64_t>{260, 1024} : std::vector<int64_t>{260, 512, 516, 1024};
  for (const int64_t head_dim : head_dims) {
    SCOPED_TRACE("head_dim " + std::to_string(head_dim));
    const Batch batch =
        MakeBatch(static_cast<uint64_t>(head_dim), Heads(4, 2, head_dim), {1, 70, 18});
    const Tensor want = Run(batch, AtOnce(batch));
    EXPECT_TRUE(SameBits(Run(batch, RandomChunks(batch, 3, 20)), want));
    EXPECT_TRUE(SameBits(Run(batch, TokenByToken(batch)), want));
    ExpectMatchesReference(
        MakeBatch(static_cast<uint64_t>(head_dim), Heads(4, 2, head_dim), {1, 70, 18}));
  }
  ExpectMatchesReference(MakeBatch(45, Heads(71, 1, 64), {1, 20, 66}));
  ExpectMatchesReference(MakeBatch(46, Heads(150, 2, 20), {3, 1}));
}

TEST_P(AttentionTest, MatchesReferenceInBF16) {
  Batch batch = MakeBatch(40, Heads(9, 3, 64), kLengths, DType::kBF16);
  ExpectMatchesReference(batch);
  batch.out = DType::kBF16;
  ExpectMatchesReference(batch);
  batch = MakeBatch(41, Heads(6, 6, 20), kLengths, DType::kBF16);
  batch.out = DType::kBF16;
  ExpectMatchesReference(batch);
}

TEST_P(AttentionTest, SlidingWindow) {
  for (const int64_t window : {1, 2, 15, 16, 17, 63, 64, 65, 1000}) {
    SCOPED_TRACE(window);
    AttentionParams params = Heads(6, 2, 32);
    params.sliding_window = window;
    ExpectMatchesReference(MakeBatch(50, params, {1, 17, 150}));
    ExpectMatchesReference(MakeBatch(51, params, {33, 200}, DType::kBF16));
  }
}

TEST_P(AttentionTest, SoftCap) {
  AttentionParams params = Heads(8, 2, 64);
  params.softcap = 1.5f;
  params.scale *= 3;
  ExpectMatchesReference(MakeBatch(60, params, {5, 100}));
  params.sliding_window = 40;
  ExpectMatchesReference(MakeBatch(61, params, {5, 100}));
}

// Of 6 heads over 2: no two alike, so that a slope of another head is seen.
constexpr std::array<float, 6> kSlopes = {0.5f, 0.25f, 0.1f, 0.03f, 0.9f, 0.004f};

TEST_P(AttentionTest, Alibi) {
  AttentionParams params = Heads(6, 2, 32);
  params.alibi_slopes = kSlopes;
  ExpectMatchesReference(MakeBatch(62, params, kLengths));
  ExpectMatchesReference(MakeBatch(63, params, {33, 200}, DType::kBF16));
  params.sliding_window = 40;
  params.softcap = 1.5f;
  ExpectMatchesReference(MakeBatch(64, params, {5, 100}));
  const Batch batch = MakeBatch(66, params, {1, 17, 131, 70});
  const Tensor want = Run(batch, AtOnce(batch));
  EXPECT_TRUE(SameBits(Run(batch, TokenByToken(batch)), want));
  EXPECT_TRUE(SameBits(Run(batch, RandomChunks(batch, 7, 20)), want));
}

// Equal keys: the weights are powers of e^-slope, the nearest key's the largest.
TEST_P(AttentionTest, AlibiByHand) {
  AttentionParams params = Heads(1, 1, 16);
  const float slope = std::log(2.0f);
  params.alibi_slopes = std::span(&slope, 1);
  Batch batch = MakeBatch(67, params, {3});
  Fill(batch.k, 0);
  for (int64_t t = 0; t < 3; ++t) {
    std::fill_n(batch.v.Row<float>(t), 16, static_cast<float>(t));  // 0, 1, 2
  }
  const Tensor got = Run(batch, AtOnce(batch));
  EXPECT_NEAR(got.Row<float>(1)[3], 1 / 1.5, 1e-6);           // weights 1, 1/2
  EXPECT_NEAR(got.Row<float>(2)[3], (2 + 0.5) / 1.75, 1e-6);  // weights 1, 1/2, 1/4
}

TEST_P(AttentionTest, LargeScores) {
  AttentionParams params = Heads(4, 2, 64);
  params.scale = 50;  // one key takes all the weight
  ExpectMatchesReference(MakeBatch(65, params, {3, 140}));
}

// A token's bits are the same in prefill, in chunks, and alone.
TEST_P(AttentionTest, ChunkingDoesNotChangeBits) {
  uint64_t seed = 70;
  int combination = 0;
  const std::vector<int64_t> longest_chunks =
      IsSlow() ? std::vector<int64_t>{17} : std::vector<int64_t>{3, 16, 17, 70};
  for (const int64_t window : {0, 1, 20, 64, 100}) {
    for (const float softcap : {0.0f, 2.0f}) {
      for (const auto& [heads, kv_heads] : {std::pair{9, 3}, {5, 5}, {8, 1}}) {
        // Five of the thirty: each window, soft cap and grouping of heads.
        if (IsSlow() && combination++ % 7 != 0) continue;
        SCOPED_TRACE("window " + std::to_string(window) + " heads " + std::to_string(heads));
        AttentionParams params = Heads(heads, kv_heads, 48);
        params.sliding_window = window;
        params.softcap = softcap;
        const DType cache = heads == 5 ? DType::kBF16 : DType::kF32;
        const Batch batch = MakeBatch(++seed, params, {1, 17, 131, 0, 64, 230}, cache);
        const Tensor want = Run(batch, AtOnce(batch));
        EXPECT_TRUE(SameBits(Run(batch, TokenByToken(batch)), want));
        for (const int64_t longest : longest_chunks) {
          EXPECT_TRUE(SameBits(Run(batch, RandomChunks(batch, seed, longest)), want)) << longest;
        }
      }
    }
  }
}

// Nor do the other sequences of the step, or where the blocks lie.
TEST_P(AttentionTest, NeighboursDoNotChangeBits) {
  const Batch batch = MakeBatch(80, Heads(9, 3, 64), {70, 1, 200});
  const Tensor together = Run(batch, AtOnce(batch));
  for (size_t s = 0; s < batch.lengths.size(); ++s) {
    Batch alone = MakeBatch(81, batch.params, {batch.lengths[s]});
    for (Tensor Batch::*m : {&Batch::q, &Batch::k, &Batch::v}) {
      const Matrix from = batch.*m;
      std::copy_n(from.Row<float>(batch.Row(s, 0)), (alone.*m).bytes() / 4,
                  (alone.*m).Row<float>(0));
    }
    EXPECT_TRUE(SameBits(Run(alone, AtOnce(alone)),
                         together.view().Rows(batch.Row(s, 0), batch.lengths[s])));
  }
}

TEST_P(AttentionTest, ThreadsDoNotChangeBits) {
  const Batch batch = MakeBatch(90, Heads(9, 3, 64), {70, 1, 300, 20});
  const Tensor want = Run(batch, AtOnce(batch));
  for (const int threads : {1, 3}) {
    const auto other = WithThreads(threads);
    const auto store = NewStore(other->backend(), other->exec(), batch);
    EXPECT_TRUE(
        SameBits(RunOn(other->backend(), other->exec(), batch, AtOnce(batch), *store), want));
  }
}

TEST_P(AttentionTest, NaNReachesOnlyTokensThatSeeIt) {
  for (const int64_t window : {0, 30}) {
    for (const int64_t group : {1, 3}) {
      for (const int64_t bad : {0, 17, 64, 99}) {
        SCOPED_TRACE("window " + std::to_string(window) + " bad " + std::to_string(bad));
        AttentionParams params = Heads(2 * group, 2, 32);
        params.sliding_window = window;
        Batch batch = MakeBatch(100, params, {100, 40});
        ExpectNaNReachesOnlyTokensThatSeeIt(batch, bad);
      }
    }
  }
}

// Values alone may be NaN or infinite too: the weights of the key are then finite.
TEST_P(AttentionTest, NaNValueAndInfiniteQuery) {
  Batch batch = MakeBatch(110, Heads(3, 3, 32), {80});
  const Tensor clean = Run(batch, AtOnce(batch));
  batch.v.Row<float>(50)[1] = static_cast<float>(kNaN);
  batch.q.Row<float>(7)[40] = std::numeric_limits<float>::infinity();
  const Tensor got = Run(batch, AtOnce(batch));
  for (int64_t r = 0; r < 80; ++r) {
    for (int64_t c = 0; c < 96; ++c) {
      const bool bad = (r >= 50 && c == 1) || (r == 7 && c >= 32 && c < 64);
      const float x = got.Row<float>(r)[c];
      if (bad) {
        EXPECT_TRUE(std::isnan(x)) << r << " " << c;
      } else {
        EXPECT_EQ(x, clean.Row<float>(r)[c]) << r << " " << c;
      }
    }
  }
}

TEST_P(AttentionTest, ZeroRowsAverageTheValues) {
  Batch batch = MakeBatch(120, Heads(2, 2, 32), {40});
  Fill(batch.q, 0);
  Fill(batch.v, 1.5);
  const Tensor got = Run(batch, AtOnce(batch));
  for (int64_t r = 0; r < 40; ++r) {
    for (int64_t c = 0; c < got.cols(); ++c) {
      ASSERT_NEAR(got.Row<float>(r)[c], 1.5f, 1.5f * 44 * 0x1p-24f);
    }
  }
}

// Two sequences share their first 20 tokens; the second one continues on a copy of the partly
// filled block.
TEST_P(AttentionTest, CopiedBlockContinuesAlone) {
  for (const DType cache : {DType::kF32, DType::kBF16}) {
    Batch both = MakeBatch(130, Heads(4, 2, 64), {40, 40}, cache);
    for (Tensor Batch::*m : {&Batch::q, &Batch::k, &Batch::v}) {
      std::copy_n((both.*m).Row<float>(0), 20 * (both.*m).cols(), (both.*m).Row<float>(40));
    }
    const Tensor want = Run(both, AtOnce(both));

    const auto store = NewStore(backend(), exec(), both, 2);
    Poison(backend(), exec(), *store);
    for (const int64_t layer : {0, 1}) RunOn(backend(), exec(), both, {{20, 0}}, *store, layer);
    backend().CopyKvBlock(exec(), *store, both.tables[0][0], both.tables[1][0]);
    backend().CopyKvBlock(exec(), *store, both.tables[0][1], both.tables[1][1]);
    for (const int64_t layer : {0, 1}) {
      const std::vector<SequenceStep> steps = {{0, 20, 20, both.tables[0]},
                                               {20, 20, 20, both.tables[1]}};
      const auto plan = backend().PlanBatch(exec(), steps);
      const auto rows = [&](const Tensor& m) {
        Tensor picked = HostTensor(DType::kF32, 40, m.cols());
        std::copy_n(m.Row<float>(20), 20 * m.cols(), picked.Row<float>(0));
        std::copy_n(m.Row<float>(60), 20 * m.cols(), picked.Row<float>(20));
        return OnDevice(picked);
      };
      backend().AppendKv(exec(), *plan, layer, rows(both.k), rows(both.v), *store);
      const Tensor out = Empty(DType::kF32, 40, both.q.cols());
      backend().Attention(exec(), *plan, layer, both.params, rows(both.q), *store, out);
      const Tensor got = OnHost(out);
      EXPECT_TRUE(SameBits(got.view().Rows(0, 20), want.view().Rows(20, 20)));
      EXPECT_TRUE(SameBits(got.view().Rows(20, 20), want.view().Rows(60, 20)));
    }
  }
}

TEST_P(AttentionTest, LayersAreSeparate) {
  const Batch first = MakeBatch(140, Heads(4, 2, 32), {30, 18});
  Batch second = MakeBatch(141, first.params, {30, 18});
  second.tables = first.tables;
  const auto store = NewStore(backend(), exec(), first, 2);
  RunOn(backend(), exec(), first, AtOnce(first), *store, 0);
  const Tensor got = RunOn(backend(), exec(), second, AtOnce(second), *store, 1);
  EXPECT_TRUE(SameBits(got, Run(second, AtOnce(second))));
}

TEST_P(AttentionTest, NoTokens) {
  const Batch batch = MakeBatch(150, Heads(4, 2, 32), {0, 0});
  EXPECT_EQ(Run(batch, AtOnce(batch)).rows(), 0);
  const auto store = NewStore(backend(), exec(), batch);
  EXPECT_EQ(store->shape().blocks, 3);
  EXPECT_EQ(store->bytes(), 3 * KvBlockBytes(store->shape()));
  const auto plan = backend().PlanBatch(exec(), {});
  EXPECT_EQ(plan->tokens(), 0);
}

// Views with a stride: q inside a wider matrix, as after a fused projection.
TEST_P(AttentionTest, StridedViews) {
  const Batch batch = MakeBatch(160, Heads(4, 2, 32), {50});
  const Tensor want = Run(batch, AtOnce(batch));
  Tensor wide = HostTensor(DType::kF32, 50, 128 + 64 + 64);
  Fill(wide, kNaN);
  for (int64_t r = 0; r < 50; ++r) {
    std::copy_n(batch.q.Row<float>(r), 128, wide.Row<float>(r));
    std::copy_n(batch.k.Row<float>(r), 64, wide.Row<float>(r) + 128);
    std::copy_n(batch.v.Row<float>(r), 64, wide.Row<float>(r) + 192);
  }
  const Tensor device = OnDevice(wide);
  const Matrix view = device;
  const auto store = NewStore(backend(), exec(), batch);
  const SequenceStep step{0, 50, 0, batch.tables[0]};
  const auto plan = backend().PlanBatch(exec(), std::span(&step, 1));
  backend().AppendKv(exec(), *plan, 0, view.Cols(128, 64), view.Cols(192, 64), *store);
  const Tensor out = Empty(DType::kF32, 50, 200);
  backend().Attention(exec(), *plan, 0, batch.params, view.Cols(0, 128), *store,
                      out.view().Cols(16, 128));
  const Tensor got = OnHost(out);
  EXPECT_TRUE(SameBits(got.view().Cols(16, 128), want));
}

QUANTMILL_ALL_BACKENDS(AttentionTest);

}  // namespace
}  // namespace quantmill::test
