#include "quant/solve/gptq.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "quant/solve/rtn.h"
#include "statistics.h"
#include "tests/support/backends.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

using Kind = SolveEvent::Kind;

class GptqTest : public BackendTest {
 protected:
  GptqFactor Prepare(ConstMatrix gram, const GptqOptions& options = {}) {
    return PrepareGptq(backend(), exec(), OnDevice(gram), options);
  }
  SolveResult Solve(const GptqFactor& factor, ConstMatrix weight, const QuantScheme& scheme) {
    return SolveGptq(backend(), exec(), factor, OnDevice(weight), scheme);
  }
};
QUANTMILL_ALL_BACKENDS(GptqTest);

Tensor Square(const std::vector<float>& values, int64_t n) {
  Tensor m = HostTensor(DType::kF32, n, n);
  std::copy(values.begin(), values.end(), m.Row<float>(0));
  return m;
}

std::vector<Kind> KindsOf(const std::vector<SolveEvent>& events) {
  std::vector<Kind> kinds;
  kinds.reserve(events.size());
  for (const SolveEvent& event : events) kinds.push_back(event.kind);
  return kinds;
}

// H = [[2, 1], [1, 1]], no damping. H^-1 = [[1, -1], [-1, 2]] = R^T R with R = [[1, -1], [0, 1]].
// w = [1.4, 7], scale 7 / 7.5 -> with a given grid of step 1: code 1, e = 0.4, so the second weight
// becomes 7 - 0.4 * (-1) = 7.4, code 7, e = 0.4. Loss 0.32; rounding alone codes the same here; at
// w = [1.4, 5.2] the second becomes 5.6 and GPTQ takes 6 where rounding takes 5.
TEST_P(GptqTest, TwoByTwoByHand) {
  const GptqFactor factor =
      Prepare(Square({2, 1, 0, 1}, 2), {.damp_percent = 0, .act_order = true});
  ASSERT_TRUE(factor.ok());
  EXPECT_EQ(factor.damp(), 0);
  const Tensor gram = OnHost(factor.gram());
  EXPECT_FLOAT_EQ(gram.Row<float>(0)[0], 1);
  EXPECT_FLOAT_EQ(gram.Row<float>(0)[1], -1);
  EXPECT_FLOAT_EQ(gram.Row<float>(1)[1], 1);
  EXPECT_EQ(gram.Row<float>(1)[0], 1);  // H

  const QuantScheme scheme{.group_size = 2, .scale_dtype = DType::kF32};
  const std::vector<float> weight = {1.4f, 5.2f};
  const float one = 1;
  Grid grid{OnDevice(ViewOf(&one, 1, 1)), {}};
  const Tensor device = OnDevice(ViewOf(weight.data(), 1, 2));
  const SolveResult got = SolveGptq(backend(), exec(), factor, device, scheme, grid);
  EXPECT_EQ(got.linear.codes, (std::vector<int8_t>{1, 6}));
  EXPECT_EQ(SolveRtn(backend(), exec(), device, scheme, grid).linear.codes,
            (std::vector<int8_t>{1, 5}));
  // d = [-0.4, 0.8]: 2 * 0.16 - 2 * 0.32 + 0.64 = 0.32. w H w = 2 * 1.96 + 2 * 7.28 + 27.04.
  EXPECT_NEAR(got.relative_error, 0.32 / 45.52, 1e-6);
  EXPECT_TRUE(got.events.empty());
}

// Offsets of a group move its target: the same codes as those of the moved target without them.
TEST_P(GptqTest, OffsetsMoveTheTarget) {
  const GptqFactor factor =
      Prepare(Square({2, 1, 0, 1}, 2), {.damp_percent = 0, .act_order = true});
  const QuantScheme scheme{.group_size = 2, .scale_dtype = DType::kF32};
  const float one = 1;
  const float offset = -2.5f;
  const std::vector<float> weight = {1.4f - 2.5f, 5.2f - 2.5f};
  Grid grid{OnDevice(ViewOf(&one, 1, 1)), {}, 1, OnDevice(ViewOf(&offset, 1, 1))};
  const Tensor device = OnDevice(ViewOf(weight.data(), 1, 2));
  const SolveResult got = SolveGptq(backend(), exec(), factor, device, scheme, grid, 2);
  EXPECT_EQ(got.linear.codes, (std::vector<int8_t>{1, 6}));  // as TwoByTwoByHand
  EXPECT_EQ(got.offsets, std::vector<float>{offset});
  // The same d; w H w = 2 * 1.21 - 2 * 2.97 + 7.29.
  EXPECT_NEAR(got.relative_error, 0.32 / 3.77, 1e-5);
  const SolveResult rounded = SolveRtn(backend(), exec(), device, scheme, grid);
  EXPECT_EQ(rounded.linear.codes, (std::vector<int8_t>{1, 5}));
  EXPECT_NEAR(rounded.relative_error, (0.16 + 0.04) / (1.21 + 7.29), 1e-5);
}

// A dead input's value is the one nearest to 0 that the group's grid has.
TEST_P(GptqTest, OffsetsOfDeadInputs) {
  const GptqFactor factor = Prepare(Square({2, 0, 0, 0}, 2));
  const QuantScheme scheme{.group_size = 2, .scale_dtype = DType::kF32};
  const float one = 1;
  const float offset = -2.6f;
  const std::vector<float> weight = {0.5f, 3.0f};
  Grid grid{OnDevice(ViewOf(&one, 1, 1)), {}, 1, OnDevice(ViewOf(&offset, 1, 1))};
  const SolveResult got =
      SolveGptq(backend(), exec(), factor, OnDevice(ViewOf(weight.data(), 1, 2)), scheme, grid);
  EXPECT_EQ(got.linear.codes, (std::vector<int8_t>{3, 3}));
}

TEST_P(GptqTest, DiagonalGramIsRoundingToNearest) {
  Random random(1);
  const int64_t in = 200;
  Tensor gram = HostTensor(DType::kF32, in, in);
  Fill(gram, 0);
  for (int64_t i = 0; i < in; ++i) gram.Row<float>(i)[i] = static_cast<float>(random.Uniform(1, 9));
  const GptqFactor factor = Prepare(gram);
  for (const bool symmetric : {true, false}) {
    const QuantScheme scheme{.symmetric = symmetric, .group_size = 50};
    const Tensor weight = NormalMatrix(random, DType::kF32, 33, in);
    const SolveResult got = Solve(factor, weight, scheme);
    const SolveResult want = SolveRtn(backend(), exec(), OnDevice(weight), scheme);
    EXPECT_EQ(got.linear.codes, want.linear.codes);
    EXPECT_EQ(got.linear.scales, want.linear.scales);
    EXPECT_EQ(got.linear.zero_points, want.linear.zero_points);
  }
}

// Every scheme: a valid linear, the error that the file's reader will see, and a gain over rounding
// that is neither absent nor too good to be true.
TEST_P(GptqTest, BeatsRoundingOnCorrelatedInputs) {
  Random random(2);
  const int64_t in = 192;
  const int64_t out = 48;
  double product = 1;
  int trials = 0;
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {true, false}) {
      for (const int64_t group : {int64_t{64}, QuantScheme::kPerChannel}) {
        const bool act_order = trials % 3 != 0;
        const Tensor gram = CorrelatedGram(random, in, 400, 0.9);
        const Tensor weight = NormalMatrix(random, DType::kF32, out, in, 0.05);
        const GptqFactor factor = Prepare(gram, {.act_order = act_order});
        ASSERT_TRUE(factor.ok());
        const QuantScheme scheme{.bits = bits,
                                 .symmetric = symmetric,
                                 .group_size = group,
                                 .scale_dtype = trials % 2 == 0 ? DType::kF16 : DType::kBF16};
        const SolveResult got = Solve(factor, weight, scheme);
        const SolveResult rtn = SolveRtn(backend(), exec(), OnDevice(weight), scheme);
        const double whole = Weighted(gram, RowsOf(weight));
        const double error = Weighted(gram, ErrorOf(got.linear, weight)) / whole;
        const double rtn_error = Weighted(gram, ErrorOf(rtn.linear, weight)) / whole;
        EXPECT_NEAR(got.relative_error, error, 1e-4 * error) << Describe(scheme);
        EXPECT_LT(error, 0.75 * rtn_error) << Describe(scheme);
        EXPECT_GT(error, 0.02 * rtn_error) << Describe(scheme);
        product *= error / rtn_error;
        ++trials;
        for (const float scale : got.linear.scales) {
          ASSERT_EQ(scale, RoundTo(scheme.scale_dtype, scale));
        }
        for (const int8_t code : got.linear.codes) {
          ASSERT_GE(code, scheme.min_code());
          ASSERT_LE(code, scheme.max_code());
        }
      }
    }
  }
  const double mean = std::pow(product, 1.0 / trials);
  EXPECT_LT(mean, 0.5);
  EXPECT_GT(mean, 0.1);
}

TEST_P(GptqTest, OrderIsByLoudnessThenIndex) {
  const Tensor gram = Square({4, 0, 0, 0,  //
                              0, 9, 0, 0,  //
                              0, 0, 4, 0,  //
                              0, 0, 0, 1},
                             4);
  EXPECT_EQ(Prepare(gram).order(), (std::vector<int32_t>{1, 0, 2, 3}));
  EXPECT_EQ(Prepare(gram, {.act_order = false}).order(), (std::vector<int32_t>{0, 1, 2, 3}));
  EXPECT_NEAR(Prepare(gram).damp(), 0.01 * 4.5, 1e-8);
}

// Act-order solves the loud inputs while there is still room to correct them.
TEST_P(GptqTest, ActOrderHelpsOnAverage) {
  Random random(3);
  double with = 0;
  double without = 0;
  for (int trial = 0; trial < 6; ++trial) {
    const Tensor gram = CorrelatedGram(random, 128, 300, 0.9);
    const Tensor weight = NormalMatrix(random, DType::kF32, 32, 128, 0.05);
    const QuantScheme scheme{.bits = 3, .group_size = 128};
    with += Solve(Prepare(gram), weight, scheme).relative_error;
    without += Solve(Prepare(gram, {.act_order = false}), weight, scheme).relative_error;
  }
  EXPECT_LT(with, without);
}

TEST_P(GptqTest, DeadInputsGetTheZeroPoint) {
  Random random(4);
  const int64_t in = 96;
  Tensor gram = CorrelatedGram(random, in, 200, 0.8);
  const std::vector<int64_t> dead = {0, 40, 95};
  for (const int64_t d : dead) {
    for (int64_t i = 0; i < in; ++i) gram.Row<float>(d)[i] = gram.Row<float>(i)[d] = 0;
  }
  const GptqFactor factor = Prepare(gram);
  ASSERT_TRUE(factor.ok());
  ASSERT_EQ(KindsOf(factor.events()), (std::vector<Kind>{Kind::kDeadColumns}));
  EXPECT_EQ(factor.events()[0].value, 3);
  double mean = 0;
  for (int64_t i = 0; i < in; ++i) mean += static_cast<double>(gram.Row<float>(i)[i]) / 93;
  EXPECT_NEAR(factor.damp(), 0.01 * mean, 1e-5 * mean);

  const Tensor weight = NormalMatrix(random, DType::kF32, 20, in, 0.05);
  for (const bool symmetric : {true, false}) {
    const SolveResult got = Solve(factor, weight, {.symmetric = symmetric, .group_size = 32});
    EXPECT_EQ(KindsOf(got.events), (std::vector<Kind>{Kind::kDeadColumns}));
    for (int64_t o = 0; o < 20; ++o) {
      for (const int64_t d : dead) {
        const int zero =
            symmetric ? 0 : got.linear.zero_points[static_cast<size_t>(o * 3 + d / 32)];
        EXPECT_EQ(got.linear.codes[static_cast<size_t>(o * in + d)], zero);
      }
    }
    const double whole = Weighted(gram, RowsOf(weight));
    const double error = Weighted(gram, ErrorOf(got.linear, weight)) / whole;
    EXPECT_NEAR(got.relative_error, error, 1e-4 * error);
  }
}

TEST_P(GptqTest, AllInputsDead) {
  Tensor gram = HostTensor(DType::kF32, 40, 40);
  Fill(gram, 0);
  const GptqFactor factor = Prepare(gram);
  EXPECT_TRUE(factor.ok());
  Random random(5);
  const SolveResult got =
      Solve(factor, NormalMatrix(random, DType::kF32, 3, 40), {.group_size = 40});
  EXPECT_EQ(got.relative_error, 0);
  EXPECT_EQ(got.linear.codes, std::vector<int8_t>(120, 0));
}

TEST_P(GptqTest, BadStatisticsAreBadInput) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -1.0f}) {
    const Tensor gram = Square({1, 0, 0, bad}, 2);
    try {
      Prepare(gram);
      ADD_FAILURE() << "accepted " << bad;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      EXPECT_NE(std::string(error.what()).find("input 1"), std::string::npos) << error.what();
    }
  }
}

// H with an off-diagonal of 1.05: its lowest eigenvalue is -0.05, so 1, 2 and 4 % fail and 8 %
// does.
TEST_P(GptqTest, DampingIsRaisedUntilItFactors) {
  const GptqFactor factor = Prepare(Square({1, 1.05f, 0, 1}, 2));
  ASSERT_TRUE(factor.ok());
  EXPECT_NEAR(factor.damp(), 0.08, 1e-8);
  ASSERT_EQ(KindsOf(factor.events()), (std::vector<Kind>{Kind::kDampingRaised}));
  EXPECT_NEAR(factor.events()[0].value, 0.08, 1e-12);
  const std::vector<float> weight = {0.3f, -0.2f};
  const SolveResult got = Solve(factor, ViewOf(weight.data(), 1, 2), {.group_size = 2});
  EXPECT_EQ(KindsOf(got.events), (std::vector<Kind>{Kind::kDampingRaised}));
  EXPECT_NEAR(got.damp, 0.08, 1e-8);
}

// No damping up to the mean helps against an eigenvalue of -4.
TEST_P(GptqTest, HopelessStatisticsFallBackToRounding) {
  const Tensor gram = Square({1, 5, 0, 1}, 2);
  for (const int tries : {1, 3, 8, 100}) {
    const GptqFactor factor = Prepare(gram, {.max_tries = tries});
    EXPECT_FALSE(factor.ok());
    EXPECT_EQ(KindsOf(factor.events()), (std::vector<Kind>{Kind::kRoundToNearestFallback}));
    EXPECT_NEAR(factor.events()[0].value, std::min(1.0, 0.01 * std::pow(2, tries - 1)), 1e-12);
    const std::vector<float> weight = {0.3f, -0.2f};
    const QuantScheme scheme{.group_size = 2};
    const SolveResult got = Solve(factor, ViewOf(weight.data(), 1, 2), scheme);
    EXPECT_EQ(KindsOf(got.events), (std::vector<Kind>{Kind::kRoundToNearestFallback}));
    EXPECT_EQ(got.damp, 0);
    EXPECT_EQ(
        got.linear.codes,
        SolveRtn(backend(), exec(), OnDevice(ViewOf(weight.data(), 1, 2)), scheme).linear.codes);
  }
}

// Fewer tokens than inputs.
TEST_P(GptqTest, FewTokensStillSolve) {
  Random random(6);
  const Tensor gram = CorrelatedGram(random, 160, 12, 0.5);
  const GptqFactor factor = Prepare(gram);
  ASSERT_TRUE(factor.ok());
  EXPECT_TRUE(factor.events().empty());
  const Tensor weight = NormalMatrix(random, DType::kF32, 24, 160, 0.05);
  const QuantScheme scheme{.group_size = 80};
  const double rtn =
      Weighted(gram, ErrorOf(SolveRtn(backend(), exec(), OnDevice(weight), scheme).linear, weight));
  const double error = Weighted(gram, ErrorOf(Solve(factor, weight, scheme).linear, weight));
  EXPECT_LT(error, 0.5 * rtn);
}

TEST_P(GptqTest, AwkwardShapes) {
  Random random(7);
  for (const int64_t in : {0, 1, 31, 127, 128, 129}) {
    const GptqFactor factor = Prepare(CorrelatedGram(random, in, 2 * in + 4, 0.7));
    ASSERT_TRUE(factor.ok()) << in;
    for (const int64_t out : {0, 1, 13}) {
      Tensor weight = NormalMatrix(random, DType::kF32, out, in, 0.05);
      if (out > 1) std::fill_n(weight.Row<float>(1), in, 0.0f);
      const SolveResult got = Solve(factor, weight, {.group_size = 64});
      CheckConsistent(got.linear);
      EXPECT_GE(got.relative_error, 0);
      EXPECT_LT(got.relative_error, 0.05);
      if (out > 1) {  // a zero row stays zero
        EXPECT_TRUE(std::all_of(got.linear.codes.begin() + in, got.linear.codes.begin() + 2 * in,
                                [](int8_t code) { return code == 0; }));
      }
    }
  }
}

TEST_P(GptqTest, WeightThatOverflowsTheSolveFallsBack) {
  Random random(8);
  const Tensor gram = CorrelatedGram(random, 8, 40, 0.9);
  const GptqFactor factor = Prepare(gram);
  Tensor weight = NormalMatrix(random, DType::kF32, 2, 8);
  weight.Row<float>(1)[3] = 3e38f;
  const QuantScheme scheme{.group_size = 8, .scale_dtype = DType::kBF16};
  const SolveResult got = Solve(factor, weight, scheme);
  ASSERT_EQ(KindsOf(got.events), (std::vector<Kind>{Kind::kRoundToNearestFallback}));
  EXPECT_EQ(got.linear.codes, SolveRtn(backend(), exec(), OnDevice(weight), scheme).linear.codes);
}

TEST_P(GptqTest, SameResultForAnyNumberOfThreads) {
  Random random(9);
  const Tensor gram = CorrelatedGram(random, 200, 300, 0.9);
  const Tensor weight = NormalMatrix(random, DType::kF32, 130, 200, 0.05);
  const QuantScheme scheme{.symmetric = false, .group_size = 40};
  std::vector<SolveResult> results;
  for (const int threads : {1, 2, 3}) {
    const auto run = WithThreads(threads);
    const GptqFactor factor = PrepareGptq(run->backend(), run->exec(), run->OnDevice(gram), {});
    results.push_back(
        SolveGptq(run->backend(), run->exec(), factor, run->OnDevice(weight), scheme));
    EXPECT_EQ(results.back().linear.codes, results.front().linear.codes);
    EXPECT_EQ(results.back().linear.scales, results.front().linear.scales);
    EXPECT_EQ(results.back().linear.zero_points, results.front().linear.zero_points);
    EXPECT_EQ(results.back().relative_error, results.front().relative_error);
  }
}

}  // namespace
}  // namespace quantmill::test
