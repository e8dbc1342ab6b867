// Batches of sequences with random queries, keys and values, run step by step on a backend, and
// what their results may differ by.
#ifndef QUANTMILL_TESTS_SUPPORT_ATTENTION_BATCH_H_
#define QUANTMILL_TESTS_SUPPORT_ATTENTION_BATCH_H_

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <numeric>
#include <utility>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {

inline constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

// Tokens that each sequence adds, per step.
using Schedule = std::vector<std::vector<int64_t>>;

// Several sequences, with the queries, keys and values of all their tokens: sequence after
// sequence, position after position.
struct Batch {
  std::vector<int64_t> lengths;
  AttentionParams params;
  DType cache = DType::kF32;
  KvScheme kv;
  std::vector<float> key_scales;  // of kFp8: [layers * kv_heads]
  std::vector<float> value_scales;
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

inline Batch MakeBatch(uint64_t seed, const AttentionParams& params, std::vector<int64_t> lengths,
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

inline AttentionParams Heads(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return {.heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .scale = 1.0f / std::sqrt(static_cast<float>(head_dim))};
}

inline Schedule AtOnce(const Batch& batch) { return {batch.lengths}; }

inline Schedule TokenByToken(const Batch& batch) {
  Schedule schedule(static_cast<size_t>(std::ranges::max(batch.lengths)));
  for (size_t step = 0; step < schedule.size(); ++step) {
    for (const int64_t n : batch.lengths) {
      schedule[step].push_back(static_cast<int64_t>(step) < n ? 1 : 0);
    }
  }
  return schedule;
}

inline Schedule RandomChunks(const Batch& batch, uint64_t seed, int64_t longest) {
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

inline std::unique_ptr<KvStore> NewStore(Backend& backend, Exec& exec, const Batch& batch,
                                         int64_t layers = 1) {
  return backend.NewKvStore(exec, {.layers = layers,
                                   .blocks = batch.blocks,
                                   .kv_heads = batch.params.kv_heads,
                                   .head_dim = batch.params.head_dim,
                                   .dtype = batch.cache,
                                   .scheme = batch.kv,
                                   .key_scales = batch.key_scales,
                                   .value_scales = batch.value_scales});
}

// NaN in every slot of every block.
inline void Poison(Backend& backend, Exec& exec, KvStore& store) {
  const KvShape& shape = store.shape();
  std::vector<int32_t> table(static_cast<size_t>(shape.blocks));
  std::iota(table.begin(), table.end(), 0);
  const int64_t tokens = shape.blocks * kKvBlockTokens;
  const SequenceStep all{.first_row = 0, .tokens = tokens, .context = 0, .block_table = table};
  const auto plan = backend.PlanBatch(exec, std::span(&all, 1));
  Tensor host = HostTensor(DType::kF32, tokens, shape.kv_heads * shape.head_dim);
  Fill(host, kNaN);
  Tensor nan = backend.Empty(DType::kF32, host.rows(), host.cols());
  backend.Upload(exec, host, nan);
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    backend.AppendKv(exec, *plan, layer, nan, nan, store);
  }
  exec.stream.Synchronize();
}

// Appends and attends step by step; the outputs in the order of batch.q, in host memory.
inline Tensor RunOn(Backend& backend, Exec& exec, const Batch& batch, const Schedule& schedule,
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
        Set(result, rows[r], c, At(host, at, c));
      }
    }
  }
  return result;
}

// What |got - want| may be, element by element. With u = 2^-24 and natural units:
//   a score: head_dim products and sums, and three roundings of q * scale (in base 2);
//            a soft cap adds the error of tanh, 2^-21, and two roundings, of the capped score;
//            ALiBi the rounding of its slope in base 2 (twice), and of the sum;
//   a weight: e to the error of its score; the rounding of score - maximum; 2^-22 of exp itself;
//            once per tile another such factor, whose exponents add up to at most the range of
//            scores;
//   the output: each weight's error moves it by at most p |v - out|, twice over for the sum; and
//            as many roundings as keys and tiles.
// Where out and the store are BF16, operands of products may be too, u' = 2^-8: a score has one
// such rounding of q * scale, and a weight one; sums on tensor cores may be truncated, at up to 4 u
// a term; and the error of tanh is relative to the cap, 2^-20.
inline Tensor Bounds(const Batch& batch) {
  constexpr double kU = 0x1p-24;
  const AttentionParams& a = batch.params;
  const bool in_bf16 = batch.out == DType::kBF16 && batch.cache == DType::kBF16;
  const double operand = in_bf16 ? UnitRoundoff(DType::kBF16) : 0;
  const double of_sum = in_bf16 ? 4 * kU : kU;
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
          double error = ((static_cast<double>(a.head_dim) + 6) * of_sum + operand) * magnitude *
                         double{a.scale};
          double score = dot * double{a.scale};
          if (a.softcap > 0) {
            score = a.softcap * std::tanh(score / a.softcap);
            error += (0x1p-21 + 2 * kU) * std::abs(score);
            if (in_bf16) error += 0x1p-20 * double{a.softcap};
          }
          if (!a.alibi_slopes.empty()) {
            const double shift =
                double{a.alibi_slopes[static_cast<size_t>(h)]} * static_cast<double>(t - p);
            score -= shift;
            error += 2 * kU * shift + kU * std::abs(score);
          }
          scores.push_back(score);
          score_error = std::max(score_error, error);
        }
        const auto [low, high] = std::ranges::minmax(scores);
        const double weight_error =
            2 * score_error + 4 * kU * (high - low) + (tiles + 1) * (0x1p-22 + kU) + operand;
        double sum = 0;
        for (double& w : scores) sum += (w = std::exp(w - high));
        for (int64_t d = 0; d < a.head_dim; ++d) {
          double magnitude = 0;
          for (int64_t p = first; p <= t; ++p) {
            magnitude += scores[static_cast<size_t>(p - first)] / sum *
                         std::abs(double{batch.v.Row<float>(batch.Row(s, p))[kv + d]});
          }
          const double error =
              magnitude * (1.01 * std::expm1(2 * weight_error) + (keys + 2 * tiles + 20) * of_sum);
          bounds.Row<double>(row)[h * a.head_dim + d] =
              error + UnitRoundoff(batch.out) * (magnitude + error) + 0x1p-100;
        }
      }
    }
  }
  return bounds;
}

class AttentionBackendTest : public BackendTest {
 protected:
  Tensor Run(const Batch& batch, const Schedule& schedule) {
    const auto store = NewStore(backend(), exec(), batch);
    Poison(backend(), exec(), *store);
    return RunOn(backend(), exec(), batch, schedule, *store);
  }
  // By the reference; in F32, what is wanted is not rounded.
  Tensor Wanted(Batch& batch) {
    const DType out = std::exchange(batch.out, DType::kF32);
    const auto store = NewStore(reference(), reference_exec(), batch);
    Tensor want = RunOn(reference(), reference_exec(), batch, AtOnce(batch), *store);
    batch.out = out;
    return want;
  }
  void ExpectMatchesReference(Batch& batch) {
    const Tensor bounds = Bounds(batch);
    const Tensor got = Run(batch, AtOnce(batch));
    const auto bound = [&](int64_t r, int64_t c, double) { return bounds.Row<double>(r)[c]; };
    EXPECT_TRUE(Within(got, Wanted(batch), bound));
  }
  void ExpectMatchesReference(Batch&& batch) { ExpectMatchesReference(batch); }
  // A NaN in the keys and values of token `bad` of the first sequence reaches the tokens that see
  // it, and leaves the bits of all others alone.
  void ExpectNaNReachesOnlyTokensThatSeeIt(Batch& batch, int64_t bad) {
    const Tensor clean = Run(batch, AtOnce(batch));
    std::fill_n(batch.k.Row<float>(bad), batch.k.cols(), static_cast<float>(kNaN));
    std::fill_n(batch.v.Row<float>(bad), batch.v.cols(), static_cast<float>(kNaN));
    const int64_t window = batch.params.sliding_window;
    const int64_t length = batch.lengths[0];
    const int64_t end = window > 0 ? std::min(length, bad + window) : length;
    const int64_t rest = batch.tokens() - end;
    for (const Schedule& schedule : {AtOnce(batch), RandomChunks(batch, 5, 20)}) {
      const Tensor got = Run(batch, schedule);
      EXPECT_TRUE(SameBits(got.view().Rows(0, bad), clean.view().Rows(0, bad)));
      EXPECT_TRUE(SameBits(got.view().Rows(end, rest), clean.view().Rows(end, rest)));
      for (int64_t r = bad; r < end; ++r) {
        for (int64_t c = 0; c < got.cols(); ++c) ASSERT_TRUE(std::isnan(At(got, r, c)));
      }
    }
  }
};

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_SUPPORT_ATTENTION_BATCH_H_
