// ScoreLogits and CompareLogits.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill {
namespace {

using test::BackendTest;
using test::NormalMatrix;
using test::Random;

constexpr double kU = 0x1p-24;
constexpr double kExp = 0x1p-22;  // relative error of a backend's exp
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One row in F64, and what its scores may be off by. The contract sums in F64; terms may be F32 and
// summed in F32 over up to 64 of them:
//   a term e^(x - max): the rounding of x - max, then exp;
//   the logarithm of their sum: the terms' mean relative error, weighted by probability.
struct Row {
  std::vector<double> logits;
  double max = -std::numeric_limits<double>::infinity();
  double log_sum = 0;
  double log_sum_error = 0;
  int32_t top1 = 0;

  explicit Row(ConstMatrix m, int64_t r) {
    for (int64_t i = 0; i < m.cols; ++i) logits.push_back(double{m.Row<float>(r)[i]});
    for (size_t i = 0; i < logits.size(); ++i) {
      if (logits[i] > max) {
        max = logits[i];
        top1 = static_cast<int32_t>(i);
      }
    }
    double sum = 0;
    double distance = 0;
    for (const double x : logits) {
      const double term = std::exp(x - max);
      sum += term;
      if (term > 0) distance += term * (max - x);
    }
    log_sum = std::log(sum);
    log_sum_error = 1.01 * (kExp + kU * distance / sum + 68 * kU) + 1e-12;
  }
  double LogProb(size_t i) const { return logits[i] - max - log_sum; }
};

struct Divergence {
  double kl = 0;
  double bound = 0;
};

// KL in F64. Backends may sum it as p (e^u - 1 - u), u = log q - log p, which is never negative;
// the bound follows the errors of p, q and u through that: of u's, the derivative p (e^u - 1); of
// p's, where u is small, the term itself, and q, p and p u one by one where it is not.
Divergence Compare(const Row& p, const Row& q) {
  Divergence result;
  double terms = 0;
  for (size_t i = 0; i < p.logits.size(); ++i) {
    const double log_p = p.LogProb(i);
    const double log_q = q.LogProb(i);
    const double pi = std::exp(log_p);
    const double qi = std::exp(log_q);
    const double p_error = kExp + kU * (p.max - p.logits[i]) + p.log_sum_error + 4 * kU;
    const double q_error = kExp + kU * (q.max - q.logits[i]) + q.log_sum_error + 4 * kU;
    if (qi > 0) result.bound += pi > 1e-37 ? 0 : qi * q_error;
    if (pi == 0) {
      terms += qi;
      continue;
    }
    result.kl += pi * (log_p - log_q);
    const double u = log_q - log_p;
    const double shift = std::abs(p.max + p.log_sum - q.max - q.log_sum);
    const double u_error = kU * (std::abs(p.logits[i] - q.logits[i]) + shift + std::abs(u)) +
                           p.log_sum_error + q.log_sum_error;
    const double term = pi * (std::expm1(u) - u);
    terms += term;
    if (std::abs(u) < 0.6) {
      result.bound += term * (p_error + 12 * kU) + pi * std::abs(std::expm1(u)) * u_error;
    }
    if (std::abs(u) > 0.4) {
      result.bound += (qi > 0 ? qi * q_error : 0) + pi * (1 + std::abs(u)) * p_error + pi * u_error;
    }
  }
  result.bound += 68 * kU * terms + 1e-30;
  return result;
}

class ScoresTest : public BackendTest {
 protected:
  std::vector<TokenScore> Score(ConstMatrix logits, const std::vector<int32_t>& targets) {
    std::vector<TokenScore> scores(targets.size());
    backend().ScoreLogits(exec(), OnDevice(logits), targets, scores);
    return scores;
  }
  std::vector<TokenComparison> Comparisons(ConstMatrix p, ConstMatrix q,
                                           const std::vector<int32_t>& targets) {
    std::vector<TokenComparison> scores(targets.size());
    backend().CompareLogits(exec(), OnDevice(p), OnDevice(q), targets, scores);
    return scores;
  }
  static std::vector<int32_t> Targets(Random& random, int64_t rows, int64_t vocab) {
    std::vector<int32_t> targets;
    for (int64_t r = 0; r < rows; ++r) {
      targets.push_back(static_cast<int32_t>(random.Int(0, vocab - 1)));
    }
    return targets;
  }

  void ExpectScored(ConstMatrix logits, const std::vector<int32_t>& targets) {
    const auto got = Score(logits, targets);
    for (size_t r = 0; r < targets.size(); ++r) {
      const Row row(logits, static_cast<int64_t>(r));
      const double want = row.LogProb(static_cast<size_t>(targets[r]));
      if (std::isinf(want)) {
        EXPECT_EQ(got[r].log_prob, want) << r;
      } else {
        EXPECT_NEAR(got[r].log_prob, want, row.log_sum_error) << r;
      }
      EXPECT_EQ(got[r].top1, row.top1) << r;
    }
  }
  void ExpectCompared(ConstMatrix p, ConstMatrix q, const std::vector<int32_t>& targets) {
    const auto got = Comparisons(p, q, targets);
    const auto p_scores = Score(p, targets);
    const auto q_scores = Score(q, targets);
    for (size_t r = 0; r < targets.size(); ++r) {
      EXPECT_EQ(got[r].reference.log_prob, p_scores[r].log_prob);
      EXPECT_EQ(got[r].reference.top1, p_scores[r].top1);
      EXPECT_EQ(got[r].test.log_prob, q_scores[r].log_prob);
      EXPECT_EQ(got[r].test.top1, q_scores[r].top1);
      const auto at = static_cast<int64_t>(r);
      const Divergence want = Compare(Row(p, at), Row(q, at));
      if (std::isinf(want.kl)) {
        EXPECT_EQ(got[r].kl, want.kl) << r;
      } else {
        EXPECT_NEAR(got[r].kl, want.kl, want.bound) << r;
        EXPECT_GE(got[r].kl, -want.bound) << r;
      }
    }
  }
};

TEST_P(ScoresTest, MatchesF64) {
  Random random(1);
  for (const int64_t vocab : {1, 2, 15, 16, 17, 257, 1031, 4096, 49152}) {
    SCOPED_TRACE(vocab);
    const int64_t rows = vocab > 5000 ? 3 : 7;
    for (const double scale : {0.1, 3.0, 30.0}) {
      const Tensor p = NormalMatrix(random, DType::kF32, rows, vocab, scale);
      const Tensor q = NormalMatrix(random, DType::kF32, rows, vocab, scale);
      const auto targets = Targets(random, rows, vocab);
      ExpectScored(p, targets);
      ExpectCompared(p, q, targets);
    }
  }
}

// The divergence of a good quantization is small: it must not drown in the rounding of log-sums.
TEST_P(ScoresTest, SmallDivergencesKeepTheirDigits) {
  Random random(2);
  const int64_t vocab = 32000;
  for (const double noise : {1e-1, 1e-2, 1e-3, 1e-4}) {
    const Tensor p = NormalMatrix(random, DType::kF32, 2, vocab, 3);
    Tensor q = HostTensor(DType::kF32, 2, vocab);
    for (int64_t r = 0; r < 2; ++r) {
      for (int64_t i = 0; i < vocab; ++i) {
        q.Row<float>(r)[i] = static_cast<float>(p.Row<float>(r)[i] + noise * random.Normal());
      }
    }
    ExpectCompared(p, q, {5, 6});
    const auto got = Comparisons(p, q, {5, 6});
    for (int64_t r = 0; r < 2; ++r) {
      const double want = Compare(Row(p, r), Row(q, r)).kl;
      EXPECT_NEAR(got[static_cast<size_t>(r)].kl, want, 1e-2 * want) << noise;
    }
  }
  const Tensor same = NormalMatrix(random, DType::kF32, 1, vocab, 3);
  EXPECT_EQ(Comparisons(same, same, {0})[0].kl, 0);
}

TEST_P(ScoresTest, ExtremeLogits) {
  Random random(3);
  const int64_t vocab = 700;
  Tensor p = NormalMatrix(random, DType::kF32, 4, vocab);
  Tensor q = NormalMatrix(random, DType::kF32, 4, vocab);
  for (int64_t i = 0; i < vocab; ++i) {
    p.Row<float>(0)[i] += 1e4f;
    q.Row<float>(0)[i] -= 1e4f;
  }
  p.Row<float>(1)[13] = 1e4f;   // sure of one token
  q.Row<float>(1)[699] = 1e4f;  // sure of another
  p.Row<float>(2)[0] = -1e4f;
  q.Row<float>(3)[699] = -1e4f;
  ExpectScored(p, {1, 13, 0, 5});
  ExpectScored(p, {1, 14, 3, 5});
  ExpectCompared(p, q, {1, 13, 0, 699});
}

TEST_P(ScoresTest, InfiniteLogits) {
  Random random(4);
  const int64_t vocab = 130;
  Tensor p = NormalMatrix(random, DType::kF32, 3, vocab);
  Tensor q = NormalMatrix(random, DType::kF32, 3, vocab);
  for (const int64_t masked : {0, 64, 129}) {
    p.Row<float>(0)[masked] = -kInfinity;  // impossible in both: no divergence
    q.Row<float>(0)[masked] = -kInfinity;
    p.Row<float>(1)[masked] = -kInfinity;  // impossible in the reference alone: finite
    q.Row<float>(2)[masked] = -kInfinity;  // impossible in the test alone: infinite
  }
  ExpectScored(p, {0, 1, 2});
  ExpectCompared(p, q, {0, 64, 129});
  EXPECT_EQ(Comparisons(p, q, {1, 1, 1})[2].kl, double{kInfinity});

  Tensor none = HostTensor(DType::kF32, 2, vocab);
  test::Fill(none, -double{kInfinity});
  none.Row<float>(1)[7] = kInfinity;
  const auto got = Score(none, {3, 7});
  EXPECT_TRUE(std::isnan(got[0].log_prob));
  EXPECT_EQ(got[0].top1, 0);
  EXPECT_TRUE(std::isnan(got[1].log_prob));
  EXPECT_EQ(got[1].top1, 7);
}

TEST_P(ScoresTest, NaNStaysInItsRow) {
  Random random(5);
  const int64_t vocab = 300;
  Tensor p = NormalMatrix(random, DType::kF32, 3, vocab);
  const Tensor q = NormalMatrix(random, DType::kF32, 3, vocab);
  const auto clean = Comparisons(p, q, {1, 2, 3});
  p.Row<float>(1)[299] = kNaN;
  p.Row<float>(1)[20] = 50;
  const auto scores = Score(p, {1, 2, 3});
  EXPECT_TRUE(std::isnan(scores[1].log_prob));
  EXPECT_EQ(scores[1].top1, 20);
  for (const bool swap : {false, true}) {
    const auto got = swap ? Comparisons(q, p, {1, 2, 3}) : Comparisons(p, q, {1, 2, 3});
    EXPECT_TRUE(std::isnan(got[1].kl));
    EXPECT_TRUE(std::isnan(swap ? got[1].test.log_prob : got[1].reference.log_prob));
    for (const size_t r : {0U, 2U}) {
      EXPECT_TRUE(std::isfinite(got[r].kl));
      if (!swap) {
        EXPECT_EQ(got[r].kl, clean[r].kl);
      }
    }
  }
}

TEST_P(ScoresTest, TiesGoToTheLowestToken) {
  for (const int64_t vocab : {1, 16, 17, 200, 3000}) {
    Tensor logits = HostTensor(DType::kF32, 3, vocab);
    test::Fill(logits, 0);
    logits.Row<float>(1)[vocab - 1] = 2;
    logits.Row<float>(1)[vocab / 2] = 2;
    logits.Row<float>(1)[vocab / 3] = 2;
    logits.Row<float>(2)[0] = -1;
    const auto got = Score(logits, {0, 0, 0});
    EXPECT_EQ(got[0].top1, 0);
    EXPECT_EQ(got[1].top1, vocab / 3);
    EXPECT_EQ(got[2].top1, vocab == 1 ? 0 : 1);
  }
}

TEST_P(ScoresTest, ThreadsAndNeighboursDoNotChangeBits) {
  Random random(6);
  const int64_t rows = 40;
  const int64_t vocab = 5003;
  const Tensor p = NormalMatrix(random, DType::kF32, rows, vocab, 3);
  const Tensor q = NormalMatrix(random, DType::kF32, rows, vocab, 3);
  const auto targets = Targets(random, rows, vocab);
  const auto want = Comparisons(p, q, targets);
  for (const int threads : {1, 3}) {
    const auto other = WithThreads(threads);
    std::vector<TokenComparison> got(targets.size());
    other->backend().CompareLogits(other->exec(), other->OnDevice(p), other->OnDevice(q), targets,
                                   got);
    for (size_t r = 0; r < got.size(); ++r) {
      EXPECT_EQ(got[r].kl, want[r].kl);
      EXPECT_EQ(got[r].test.log_prob, want[r].test.log_prob);
    }
  }
  const auto alone = Comparisons(p.view().Rows(33, 1), q.view().Rows(33, 1), {targets[33]});
  EXPECT_EQ(alone[0].kl, want[33].kl);
  EXPECT_EQ(alone[0].reference.log_prob, want[33].reference.log_prob);
  EXPECT_TRUE(Score(p.view().Rows(0, 0), {}).empty());
}

// The oracle of other tests agrees with this file's.
TEST(ReferenceScores, MatchesF64) {
  test::BackendRun run(ReferenceBackend());
  Random random(7);
  const Tensor p = NormalMatrix(random, DType::kF32, 1, 500, 3);
  const Tensor q = NormalMatrix(random, DType::kF32, 1, 500, 3);
  const std::vector<int32_t> target = {5};
  TokenComparison got;
  run.backend().CompareLogits(run.exec(), p, q, target, std::span(&got, 1));
  EXPECT_NEAR(got.kl, Compare(Row(p, 0), Row(q, 0)).kl, 1e-13);
  EXPECT_NEAR(got.test.log_prob, Row(q, 0).LogProb(5), 1e-13);
}

QUANTMILL_ALL_BACKENDS(ScoresTest);

}  // namespace
}  // namespace quantmill
