// Attention whose store and outputs are BF16, where a backend may multiply in BF16, on every
// backend against the reference.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "tests/support/attention_batch.h"

namespace quantmill::test {
namespace {

class AttentionBF16Test : public AttentionBackendTest {
 protected:
  static Batch BatchOf(uint64_t seed, const AttentionParams& params, std::vector<int64_t> lengths) {
    Batch batch = MakeBatch(seed, params, std::move(lengths), DType::kBF16);
    batch.out = DType::kBF16;
    return batch;
  }
};

// Those of real families, shorter ones, and some that no tile of a product divides.
TEST_P(AttentionBF16Test, MatchesReference) {
  for (const int64_t head_dim : {8, 20, 24, 64, 80, 96, 112, 128, 192, 256, 264}) {
    // cuda/attention_mma_test.cc has the others.
    if (IsSlow() && head_dim % 64 != 0 && head_dim != 24 && head_dim != 20) continue;
    SCOPED_TRACE("head_dim " + std::to_string(head_dim));
    ExpectMatchesReference(
        BatchOf(static_cast<uint64_t>(head_dim), Heads(2, 1, head_dim), {0, 1, 17, 64, 0, 70}));
  }
  for (const auto& [heads, kv_heads] : {std::pair{3, 3}, {9, 3}, {4, 1}, {71, 1}}) {
    SCOPED_TRACE("heads " + std::to_string(heads) + " over " + std::to_string(kv_heads));
    ExpectMatchesReference(BatchOf(static_cast<uint64_t>(heads), Heads(heads, kv_heads, 64),
                                   {0, 1, 15, 16, 33, 63, 65}));
  }
}

TEST_P(AttentionBF16Test, SlidingWindow) {
  for (const int64_t window : {1, 2, 16, 63, 64, 65, 1000}) {
    SCOPED_TRACE(window);
    AttentionParams params = Heads(3, 1, 32);
    params.sliding_window = window;
    ExpectMatchesReference(BatchOf(50, params, {1, 17, 200}));
  }
}

TEST_P(AttentionBF16Test, SoftCapAndAlibi) {
  constexpr std::array<float, 4> kSlopes = {0.5f, 0.25f, 0.03f, 0.004f};
  for (const bool capped : {false, true}) {
    for (const bool shifted : {false, true}) {
      AttentionParams params = Heads(4, 2, 64);
      if (capped) params.softcap = 1.5f;
      if (shifted) params.alibi_slopes = kSlopes;
      ExpectMatchesReference(BatchOf(60, params, {5, 100}));
      params.sliding_window = 40;
      ExpectMatchesReference(BatchOf(61, params, {5, 100}));
    }
  }
}

// All the weight of a single key is 1, which is a BF16 number.
TEST_P(AttentionBF16Test, ATokenThatSeesItselfGivesItsValue) {
  AttentionParams params = Heads(2, 1, 64);
  params.sliding_window = 1;
  Batch batch = BatchOf(65, params, {40});
  const Tensor got = Run(batch, AtOnce(batch));
  EXPECT_TRUE(Within(got, Wanted(batch), Exactly()));
}

// Single errors may be as large as the bounds above; together they are not.
TEST_P(AttentionBF16Test, ErrorsAreThoseOfRounding) {
  Batch batch = BatchOf(66, Heads(4, 2, 128), {160});
  const Tensor got = Run(batch, AtOnce(batch));
  const Tensor want = Wanted(batch);
  double error = 0;
  double square = 0;
  for (int64_t r = 0; r < got.rows(); ++r) {
    for (int64_t c = 0; c < got.cols(); ++c) {
      error += std::pow(At(got, r, c) - At(want, r, c), 2);
      square += std::pow(At(want, r, c), 2);
    }
  }
  // Relative errors of up to 2^-8 of queries, of weights and of the output, spread evenly: each has
  // a deviation of 2^-8 / sqrt(3) at most, and that of a score is about 1.
  EXPECT_LT(std::sqrt(error / square), 0x1p-8 * 2);
}

TEST_P(AttentionBF16Test, ChunkingDoesNotChangeBits) {
  uint64_t seed = 70;
  for (const int64_t window : {0, 20, 100}) {
    for (const auto& [heads, kv_heads, head_dim] :
         {std::array{9, 3, 48}, std::array{2, 2, 128}, std::array{17, 1, 64}}) {
      ++seed;
      // Each window and each shape of heads once.
      if (IsSlow() && seed % 4 != 3) continue;
      SCOPED_TRACE("window " + std::to_string(window) + " heads " + std::to_string(heads));
      AttentionParams params = Heads(heads, kv_heads, head_dim);
      params.sliding_window = window;
      const Batch batch = BatchOf(seed, params, {1, 17, 101, 0});
      const Tensor want = Run(batch, AtOnce(batch));
      EXPECT_TRUE(SameBits(Run(batch, TokenByToken(batch)), want));
      for (const int64_t longest : {3, 70}) {
        EXPECT_TRUE(SameBits(Run(batch, RandomChunks(batch, seed, longest)), want)) << longest;
      }
    }
  }
}

TEST_P(AttentionBF16Test, NaNReachesOnlyTokensThatSeeIt) {
  for (const int64_t window : {0, 30}) {
    for (const int64_t bad : {0, 17, 64, 99}) {
      SCOPED_TRACE("window " + std::to_string(window) + " bad " + std::to_string(bad));
      AttentionParams params = Heads(2, 1, 32);
      params.sliding_window = window;
      Batch batch = BatchOf(100, params, {100, 40});
      ExpectNaNReachesOnlyTokensThatSeeIt(batch, bad);
    }
  }
}

// Values alone: the weights of their key are finite.
TEST_P(AttentionBF16Test, ValuesThatAreNotFinite) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Batch batch = BatchOf(110, Heads(3, 3, 64), {150});
  const Tensor clean = Run(batch, AtOnce(batch));
  batch.v.Row<float>(50)[1] = static_cast<float>(kNaN);
  batch.v.Row<float>(140)[2] = kInfinity;
  batch.v.Row<float>(3)[70] = -kInfinity;
  batch.v.Row<float>(120)[70] = kInfinity;
  for (const Schedule& schedule : {AtOnce(batch), RandomChunks(batch, 6, 9)}) {
    const Tensor got = Run(batch, schedule);
    for (int64_t r = 0; r < 150; ++r) {
      for (int64_t c = 0; c < got.cols(); ++c) {
        const double x = At(got, r, c);
        if ((r >= 50 && c == 1) || (r >= 120 && c == 70)) {
          EXPECT_TRUE(std::isnan(x)) << r << " " << c;
        } else if ((r >= 140 && c == 2) || (r >= 3 && c == 70)) {
          EXPECT_EQ(x, double{c == 2 ? kInfinity : -kInfinity}) << r;
        } else {
          EXPECT_EQ(x, At(clean, r, c)) << r << " " << c;
        }
      }
    }
  }
}

// Views with a stride, which no vector of elements is aligned to.
TEST_P(AttentionBF16Test, StridedViews) {
  const Batch batch = BatchOf(160, Heads(4, 2, 32), {50});
  const Tensor want = Run(batch, AtOnce(batch));
  const auto store = NewStore(backend(), exec(), batch);
  const SequenceStep step{0, 50, 0, batch.tables[0]};
  const auto plan = backend().PlanBatch(exec(), std::span(&step, 1));
  backend().AppendKv(exec(), *plan, 0, OnDevice(batch.k), OnDevice(batch.v), *store);
  Tensor wide = HostTensor(DType::kF32, 50, 131);
  for (int64_t r = 0; r < 50; ++r) std::copy_n(batch.q.Row<float>(r), 128, wide.Row<float>(r) + 1);
  const Tensor queries = OnDevice(wide);
  const Tensor out = Empty(DType::kBF16, 50, 131);
  backend().Attention(exec(), *plan, 0, batch.params, queries.view().Cols(1, 128), *store,
                      out.view().Cols(3, 128));
  EXPECT_TRUE(SameBits(OnHost(out).view().Cols(3, 128), want));
}

QUANTMILL_ALL_BACKENDS(AttentionBF16Test);

}  // namespace
}  // namespace quantmill::test
