#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill {
namespace {

using test::BackendTest;
using test::NormalMatrix;
using test::Random;
using test::SameBits;
using test::Within;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Tokens that each sequence adds, per step.
using Schedule = std::vector<std::vector<int64_t>>;

// Several sequences, with the queries, keys and values of all their tokens: sequence after
// sequence, position after position.
struct Batch {
  std::vector<int64_t> lengths;
  AttentionParams params;
  DType cache = DType::kF32;
  DType out = DType::kF32;
  std::vector<std::vector<int32_t>> tables;
  int64_t blocks = 0;
  Tensor q;
  Tensor k;
  Tensor v;

  int64_t tokens() const { return std::accumulate(lengths.begin(), lengths.end(), int64_t{0}); }
  int64_t Row(size_t sequence, int64_t position) const {
    return std::accumulate(lengths.begin(), lengths.begin() + static_cast<int64_t>(sequence),
                           int64_t{0}) +
           position;
  }
};

Batch MakeBatch(uint64_t seed, const AttentionParams& params, std::vector<int64_t> lengths,
                DType cache = DType::kF32) {
  Random random(seed);
  Batch batch;
  batch.lengths = std::move(lengths);
  batch.params = params;
  batch.cache = cache;
  // Physical blocks in random order, some of them nobody's.
  std::vector<int32_t> free;
  for (const int64_t n : batch.lengths) batch.blocks += (n + kKvBlockTokens - 1) / kKvBlockTokens;
  batch.blocks += 3;
  free.reserve(static_cast<size_t>(batch.blocks));
  for (int32_t b = 0; b < batch.blocks; ++b) free.push_back(b);
  for (size_t i = free.size(); i > 1; --i) {
    std::swap(free[i - 1], free[static_cast<size_t>(random.Int(0, static_cast<int64_t>(i) - 1))]);
  }
  for (const int64_t n : batch.lengths) {
    const auto count = (n + kKvBlockTokens - 1) / kKvBlockTokens;
    batch.tables.emplace_back(free.end() - count, free.end());
    free.resize(free.size() - static_cast<size_t>(count));
  }
  const int64_t tokens = batch.tokens();
  batch.q = NormalMatrix(random, DType::kF32, tokens, params.heads * params.head_dim);
  batch.k = NormalMatrix(random, DType::kF32, tokens, params.kv_heads * params.head_dim);
  batch.v = NormalMatrix(random, DType::kF32, tokens, params.kv_heads * params.head_dim);
  return batch;
}

AttentionParams Heads(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return {.heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .scale = 1.0f / std::sqrt(static_cast<float>(head_dim))};
}

Schedule AtOnce(const Batch& batch) { return {batch.lengths}; }

Schedule TokenByToken(const Batch& batch) {
  Schedule schedule(static_cast<size_t>(std::ranges::max(batch.lengths)));
  for (size_t step = 0; step < schedule.size(); ++step) {
    for (const int64_t n : batch.lengths) {
      schedule[step].push_back(static_cast<int64_t>(step) < n ? 1 : 0);
    }
  }
  return schedule;
}

Schedule RandomChunks(const Batch& batch, uint64_t seed, int64_t longest) {
  Random random(seed);
  Schedule schedule;
  std::vector<int64_t> left = batch.lengths;
  while (std::ranges::any_of(left, [](int64_t n) { return n > 0; })) {
    std::vector<int64_t> step;
    for (int64_t& n : left) {
      step.push_back(std::min(n, random.Int(0, longest)));
      n -= step.back();
    }
    schedule.push_back(step);
  }
  return schedule;
}

std::unique_ptr<KvStore> NewStore(Backend& backend, Exec& exec, const Batch& batch,
                                  int64_t layers = 1) {
  return backend.NewKvStore(exec, {.layers = layers,
                                   .blocks = batch.blocks,
                                   .kv_heads = batch.params.kv_heads,
                                   .head_dim = batch.params.head_dim,
                                   .dtype = batch.cache});
}

// NaN in every slot of every block.
void Poison(Backend& backend, Exec& exec, KvStore& store) {
  const KvShape& shape = store.shape();
  std::vector<int32_t> table(static_cast<size_t>(shape.blocks));
  std::iota(table.begin(), table.end(), 0);
  const int64_t tokens = shape.blocks * kKvBlockTokens;
  const SequenceStep all{.first_row = 0, .tokens = tokens, .context = 0, .block_table = table};
  const auto plan = backend.PlanBatch(exec, std::span(&all, 1));
  Tensor host = HostTensor(DType::kF32, tokens, shape.kv_heads * shape.head_dim);
  test::Fill(host, kNaN);
  Tensor nan = backend.Empty(DType::kF32, host.rows(), host.cols());
  backend.Upload(exec, host, nan);
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    backend.AppendKv(exec, *plan, layer, nan, nan, store);
  }
  exec.stream.Synchronize();
}

// Appends and attends step by step; the outputs in the order of batch.q, in host memory.
Tensor RunOn(Backend& backend, Exec& exec, const Batch& batch, const Schedule& schedule,
             KvStore& store, int64_t layer = 0) {
  const int64_t width = batch.q.cols();
  Tensor result = HostTensor(batch.out, batch.tokens(), width);
  std::vector<int64_t> context(batch.lengths.size());
  for (const std::vector<int64_t>& step : schedule) {
    std::vector<SequenceStep> sequences;
    std::vector<int64_t> rows;  // of the batch, for each row of the step
    for (size_t s = 0; s < step.size(); ++s) {
      sequences.push_back({.first_row = static_cast<int64_t>(rows.size()),
                           .tokens = step[s],
                           .context = context[s],
                           .block_table = batch.tables[s]});
      for (int64_t t = 0; t < step[s]; ++t) rows.push_back(batch.Row(s, context[s] + t));
      context[s] += step[s];
    }
    const auto gather = [&](const Tensor& from) {
      Tensor host = HostTensor(DType::kF32, static_cast<int64_t>(rows.size()), from.cols());
      for (size_t r = 0; r < rows.size(); ++r) {
        std::copy_n(from.Row<float>(rows[r]), from.cols(),
                    host.Row<float>(static_cast<int64_t>(r)));
      }
      Tensor device = backend.Empty(DType::kF32, host.rows(), host.cols());
      backend.Upload(exec, host, device);
      exec.stream.Synchronize();
      return device;
    };
    const auto plan = backend.PlanBatch(exec, sequences);
    backend.AppendKv(exec, *plan, layer, gather(batch.k), gather(batch.v), store);
    const Tensor out = backend.Empty(batch.out, static_cast<int64_t>(rows.size()), width);
    backend.Attention(exec, *plan, layer, batch.params, gather(batch.q), store, out);
    const Tensor host = HostTensor(batch.out, out.rows(), width);
    backend.Download(exec, out, host);
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto at = static_cast<int64_t>(r);
      for (int64_t c = 0; c < width; ++c) {
        test::Set(result, rows[r], c, test::At(host, at, c));
      }
    }
  }
  return result;
}

// What |got - want| may be, element by element. With u = 2^-24 and natural units:
//   a score: head_dim products and sums, and three roundings of q * scale (in base 2);
//            a soft cap adds the error of tanh, 2^-21, and two roundings, of the capped score;
//   a weight: e to the error of its score; the rounding of score - maximum; 2^-22 of exp itself;
//            once per tile another such factor, whose exponents add up to at most the range of
//            scores;
//   the output: each weight's error moves it by at most p |v - out|, twice over for the sum; and
//            as many roundings as keys and tiles.
Tensor Bounds(const Batch& batch) {
  constexpr double kU = 0x1p-24;
  const AttentionParams& a = batch.params;
  Tensor bounds = HostTensor(DType::kF64, batch.q.rows(), batch.q.cols());
  for (size_t s = 0; s < batch.lengths.size(); ++s) {
    for (int64_t t = 0; t < batch.lengths[s]; ++t) {
      const int64_t row = batch.Row(s, t);
      const int64_t first =
          a.sliding_window > 0 ? std::max<int64_t>(0, t - a.sliding_window + 1) : 0;
      const auto keys = static_cast<double>(t - first + 1);
      const double tiles = keys / 64 + 2;
      for (int64_t h = 0; h < a.heads; ++h) {
        const int64_t kv = h / (a.heads / a.kv_heads) * a.head_dim;
        const float* q = batch.q.Row<float>(row) + h * a.head_dim;
        std::vector<double> scores;
        double score_error = 0;
        for (int64_t p = first; p <= t; ++p) {
          double dot = 0;
          double magnitude = 0;
          for (int64_t d = 0; d < a.head_dim; ++d) {
            const double term =
                double{q[d]} *
                double{RoundTo(batch.cache, batch.k.Row<float>(batch.Row(s, p))[kv + d])};
            dot += term;
            magnitude += std::abs(term);
          }
          double error = (static_cast<double>(a.head_dim) + 6) * kU * magnitude * double{a.scale};
          double score = dot * double{a.scale};
          if (a.softcap > 0) {
            score = a.softcap * std::tanh(score / a.softcap);
            error += (0x1p-21 + 2 * kU) * std::abs(score);
          }
          scores.push_back(score);
          score_error = std::max(score_error, error);
        }
        const auto [low, high] = std::ranges::minmax(scores);
        const double weight_error =
            2 * score_error + 4 * kU * (high - low) + (tiles + 1) * (0x1p-22 + kU);
        double sum = 0;
        for (double& w : scores) sum += (w = std::exp(w - high));
        for (int64_t d = 0; d < a.head_dim; ++d) {
          double magnitude = 0;
          for (int64_t p = first; p <= t; ++p) {
            magnitude += scores[static_cast<size_t>(p - first)] / sum *
                         std::abs(double{batch.v.Row<float>(batch.Row(s, p))[kv + d]});
          }
          const double error = magnitude * (2 * weight_error * 1.01 + (keys + 2 * tiles + 20) * kU);
          bounds.Row<double>(row)[h * a.head_dim + d] =
              error + test::UnitRoundoff(batch.out) * (magnitude + error) + 0x1p-100;
        }
      }
    }
  }
  return bounds;
}

class AttentionTest : public BackendTest {
 protected:
  Tensor Run(const Batch& batch, const Schedule& schedule) {
    const auto store = NewStore(backend(), exec(), batch);
    Poison(backend(), exec(), *store);
    return RunOn(backend(), exec(), batch, schedule, *store);
  }
  void ExpectMatchesReference(Batch& batch) {
    const Tensor bounds = Bounds(batch);
    const Tensor got = Run(batch, AtOnce(batch));
    batch.out = DType::kF32;  // what is wanted is not rounded to BF16
    const auto store = NewStore(reference(), reference_exec(), batch);
    const Tensor want = RunOn(reference(), reference_exec(), batch, AtOnce(batch), *store);
    const auto bound = [&](int64_t r, int64_t c, double) { return bounds.Row<double>(r)[c]; };
    EXPECT_TRUE(Within(got, want, bound));
  }
  void ExpectMatchesReference(Batch&& batch) { ExpectMatchesReference(batch); }
};

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

TEST_P(AttentionTest, LargeScores) {
  AttentionParams params = Heads(4, 2, 64);
  params.scale = 50;  // one key takes all the weight
  ExpectMatchesReference(MakeBatch(65, params, {3, 140}));
}

// A token's bits are the same in prefill, in chunks, and alone.
TEST_P(AttentionTest, ChunkingDoesNotChangeBits) {
  uint64_t seed = 70;
  for (const int64_t window : {0, 1, 20, 64, 100}) {
    for (const float softcap : {0.0f, 2.0f}) {
      for (const auto& [heads, kv_heads] : {std::pair{9, 3}, {5, 5}, {8, 1}}) {
        SCOPED_TRACE("window " + std::to_string(window) + " heads " + std::to_string(heads));
        AttentionParams params = Heads(heads, kv_heads, 48);
        params.sliding_window = window;
        params.softcap = softcap;
        const DType cache = heads == 5 ? DType::kBF16 : DType::kF32;
        const Batch batch = MakeBatch(++seed, params, {1, 17, 131, 0, 64, 230}, cache);
        const Tensor want = Run(batch, AtOnce(batch));
        EXPECT_TRUE(SameBits(Run(batch, TokenByToken(batch)), want));
        for (const int64_t longest : {3, 16, 17, 70}) {
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

// A NaN token reaches the tokens that see it, and leaves the bits of all others alone.
TEST_P(AttentionTest, NaNReachesOnlyTokensThatSeeIt) {
  for (const int64_t window : {0, 30}) {
    for (const int64_t group : {1, 3}) {
      for (const int64_t bad : {0, 17, 64, 99}) {
        SCOPED_TRACE("window " + std::to_string(window) + " bad " + std::to_string(bad));
        AttentionParams params = Heads(2 * group, 2, 32);
        params.sliding_window = window;
        Batch batch = MakeBatch(100, params, {100, 40});
        const Tensor clean = Run(batch, AtOnce(batch));
        std::fill_n(batch.k.Row<float>(bad), batch.k.cols(), static_cast<float>(kNaN));
        std::fill_n(batch.v.Row<float>(bad), batch.v.cols(), static_cast<float>(kNaN));
        for (const Schedule& schedule : {AtOnce(batch), RandomChunks(batch, 5, 20)}) {
          const Tensor got = Run(batch, schedule);
          const int64_t end = window > 0 ? std::min(batch.lengths[0], bad + window) : 100;
          EXPECT_TRUE(SameBits(got.view().Rows(0, bad), clean.view().Rows(0, bad)));
          EXPECT_TRUE(SameBits(got.view().Rows(end, 140 - end), clean.view().Rows(end, 140 - end)));
          for (int64_t r = bad; r < end; ++r) {
            for (int64_t c = 0; c < got.cols(); ++c) ASSERT_TRUE(std::isnan(got.Row<float>(r)[c]));
          }
        }
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
  test::Fill(batch.q, 0);
  test::Fill(batch.v, 1.5);
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
  test::Fill(wide, kNaN);
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
}  // namespace quantmill
