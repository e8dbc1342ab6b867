#include "quant/transform/expected_error.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/quant/transform/problems.h"

namespace quantmill::test {
namespace {

double Square(double x) { return x * x; }

// x rounded to the smallest symmetric grid of `steps` steps that covers absmax; all in double.
double RoundSymmetric(double x, double absmax, double steps, double half) {
  const double scale = absmax / half;
  if (scale == 0) return 0;
  return std::clamp(std::nearbyint(x / scale), -std::floor(half + 0.5), steps) * scale;
}

// Mean over tokens of |Q(W diag(s)) Q(diag(1/s) x) - W x|^2, rounding as the formats do.
double MeasuredError(const RandomProblem& made, const std::vector<float>& scales) {
  const FoldProblem& problem = made.problem;
  const int64_t in = problem.in();
  const int64_t rows = problem.weight.rows();
  const int64_t size = problem.scheme.GroupSizeFor(in);
  const QuantScheme& scheme = problem.scheme;
  std::vector<double> rounded(static_cast<size_t>(rows * in));
  for (int64_t o = 0; o < rows; ++o) {
    for (int64_t begin = 0; begin < in; begin += size) {
      double hi = 0, lo = 0;
      const auto at = [&](int64_t i) {
        return static_cast<double>(problem.weight.Row<float>(o)[i]) *
               static_cast<double>(scales[static_cast<size_t>(i)]);
      };
      for (int64_t i = begin; i < begin + size; ++i) {
        hi = std::max(hi, at(i));
        lo = std::min(lo, at(i));
      }
      for (int64_t i = begin; i < begin + size; ++i) {
        double q = 0;
        if (scheme.symmetric) {
          q = RoundSymmetric(at(i), std::max(hi, -lo), scheme.max_code(), scheme.half_range());
        } else {
          const double scale = (hi - lo) / (scheme.max_code() - scheme.min_code());
          const double zero = std::nearbyint(scheme.min_code() - lo / scale);
          q = (std::clamp<double>(std::nearbyint(at(i) / scale) + zero, scheme.min_code(),
                                  scheme.max_code()) -
               zero) *
              scale;
        }
        rounded[static_cast<size_t>(o * in + i)] = q;
      }
    }
  }
  double squares = 0;
  std::vector<double> x(static_cast<size_t>(in));
  for (int64_t t = 0; t < made.inputs.rows(); ++t) {
    double absmax = 0;
    for (int64_t i = 0; i < in; ++i) {
      const auto c = static_cast<size_t>(i);
      x[c] = static_cast<double>(made.inputs.Row<float>(t)[i]) / static_cast<double>(scales[c]);
      absmax = std::max(absmax, std::abs(x[c]));
    }
    if (scheme.input.type == InputScheme::Type::kInt8) {
      for (double& v : x) v = RoundSymmetric(v, absmax, 127, 127);
    }
    for (int64_t o = 0; o < rows; ++o) {
      double difference = 0;
      for (int64_t i = 0; i < in; ++i) {
        const auto c = static_cast<size_t>(i);
        difference += rounded[static_cast<size_t>(o * in + i)] * x[c] -
                      static_cast<double>(problem.weight.Row<float>(o)[i]) *
                          static_cast<double>(made.inputs.Row<float>(t)[i]);
      }
      squares += Square(difference);
    }
  }
  return squares / static_cast<double>(made.inputs.rows());
}

std::vector<float> RandomScales(Random& random, int64_t count) {
  std::vector<float> scales;
  for (int64_t i = 0; i < count; ++i) {
    scales.push_back(static_cast<float>(std::exp2(random.Uniform(-2, 2))));
  }
  return RoundScales(scales);
}

// What is expected is what is measured, whatever the scales. A sum of 24 * 64 * 64 independent
// squares is within 3 % of its mean; the largest weight of a group, which is on the grid's end and
// has a smaller error, takes another 1 in 32.
TEST(ExpectedErrorTest, IsWhatRoundingLeaves) {
  std::vector<QuantScheme> schemes = {IntScheme(4, true, 32), IntScheme(4, false, 32),
                                      IntScheme(8, true, QuantScheme::kPerChannel), W8A8()};
  for (const QuantScheme& scheme : schemes) {
    for (const double outlier : {1.0, 30.0}) {
      Random random(11);
      const RandomProblem made = MakeProblem(random, scheme, 48, WithOutliers(96, 3, outlier), 96);
      for (const auto& scales : {Ones(made.problem), RandomScales(random, 96)}) {
        const double measured = MeasuredError(made, scales);
        const double expected = ExpectedError(made.problem).At(scales).total();
        EXPECT_GT(expected, 0.8 * measured) << Describe(scheme) << outlier;
        EXPECT_LT(expected, 1.25 * measured) << Describe(scheme) << outlier;
      }
    }
  }
}

// One row, two channels: with s_i proportional to 1 / |w_i| both reach the grid's end, and the
// error is step^2 / 12 * (h_0 w_0^2 + h_1 w_1^2), which no other scales go below.
TEST(ExpectedErrorTest, BalanceFindsTheHandWorkedOptimum) {
  FoldProblem problem;
  problem.scheme = IntScheme(4, true, QuantScheme::kPerChannel);
  problem.weight = HostTensor(DType::kF32, 1, 2);
  problem.weight.Row<float>(0)[0] = 0.25f;
  problem.weight.Row<float>(0)[1] = 2;
  problem.scale_of = {0, 1};
  problem.scales = 2;
  problem.mean_square = problem.importance = {100, 1};
  problem.absmax = {10, 1};
  const double best = (100 * Square(0.25) + 1 * Square(2.0)) / Square(7.5) / 12;
  const std::vector<float> scales = ExpectedError(problem).Balance({1, 1});
  const double found = ExpectedError(problem).At(scales).total();
  EXPECT_GE(found, best * (1 - 1e-6));
  EXPECT_LE(found, best * 1.1);  // steps of 4 % in s, twice squared
  EXPECT_GT(ExpectedError(problem).At({1, 1}).total(), 5 * best);
}

// Query heads that read one key-value head share scales. Asymmetric: a symmetric grid of four bits
// ends at 7 of 7.5 steps, where the largest weights of balanced groups have errors of their own.
TEST(ExpectedErrorTest, SharedScales) {
  Random random(5);
  for (const int64_t group : {int64_t{32}, QuantScheme::kPerChannel}) {
    RandomProblem made =
        MakeProblem(random, IntScheme(4, false, group), 24, WithOutliers(64, 4, 20), 64);
    FoldProblem& problem = made.problem;
    problem.scales = 32;
    for (size_t i = 0; i < 64; ++i) problem.scale_of[i] = static_cast<int32_t>(i % 32);
    const std::vector<float> scales = ExpectedError(problem).Balance(Ones(problem));
    ASSERT_EQ(scales.size(), 32u);
    const double balanced = MeasuredError(made, ColumnScales(problem, scales));
    EXPECT_LT(balanced, 0.9 * MeasuredError(made, ColumnScales(problem, Ones(problem))));
    EXPECT_NEAR(ExpectedError(problem).At(scales).total() / balanced, 1, 0.25);
  }
}

// Balancing both sides of W8A8 beats either extreme, as measured.
TEST(ExpectedErrorTest, BalanceLowersTheMeasuredErrorOfBothSides) {
  Random random(8);
  const RandomProblem made = MakeProblem(random, W8A8(), 48, WithOutliers(96, 3, 60), 64);
  const std::vector<float> scales = ExpectedError(made.problem).Balance(Ones(made.problem));
  EXPECT_LT(MeasuredError(made, scales), 0.25 * MeasuredError(made, Ones(made.problem)));
  const ExpectedErrors errors = ExpectedError(made.problem).At(scales);
  EXPECT_GT(errors.inputs, 0);
  EXPECT_GT(errors.weights, 0);
}

// Nothing to balance: the answer is no worse than none.
TEST(ExpectedErrorTest, NeverWorseThanTheStart) {
  for (const QuantScheme& scheme : {IntScheme(4, false, 16), W8A8()}) {
    Random random(9);
    const RandomProblem made = MakeProblem(random, scheme, 33, WithOutliers(48, 1, 1), 40);
    const double before = ExpectedError(made.problem).At(Ones(made.problem)).total();
    const std::vector<float> scales = ExpectedError(made.problem).Balance(Ones(made.problem));
    // Rounding to BF16 may cost back a little of what was gained.
    EXPECT_LE(ExpectedError(made.problem).At(scales).total(), before * (1 + 1e-3));
  }
}

TEST(ExpectedErrorTest, ZeroWeightsAndDeadInputsStayFinite) {
  Random random(2);
  RandomProblem made = MakeProblem(random, W8A8(), 5, WithOutliers(12, 12, 0), 7);
  FoldProblem& problem = made.problem;
  for (const float s : ExpectedError(problem).Balance(Ones(problem)))
    EXPECT_TRUE(std::isfinite(s) && s > 0) << s;
  Fill(problem.weight, 0);
  for (const float s : ExpectedError(problem).Balance(Ones(problem)))
    EXPECT_TRUE(std::isfinite(s) && s > 0) << s;
  EXPECT_EQ(ExpectedError(problem).At(Ones(problem)).total(), 0);
}

// ---- terms ----

// Changing scales one by one equals setting them all.
TEST(NoiseTermTest, ChangesEqualAFreshStart) {
  Random random(6);
  for (const bool inverse : {false, true}) {
    for (const bool one_sided : {false, true}) {
      constexpr int64_t kLines = 37;
      constexpr int32_t kMembers = 9;
      NoiseTerm term(0.3, inverse, kLines);
      for (int32_t j = 0; j < kMembers; ++j) {
        const auto values = [&] {
          std::vector<float> x(kLines);
          for (float& v : x) v = static_cast<float>(std::abs(random.Normal()));
          return x;
        };
        term.AddMember(j, values(), one_sided ? std::vector<float>() : values(),
                       random.Uniform(0, 2));
      }
      NoiseTerm fresh = term;
      std::vector<float> scales(kMembers, 1.0f);
      term.SetScales(scales);
      for (int move = 0; move < 300; ++move) {
        const int64_t member = random.Int(0, kMembers - 1);
        const float ratio = random.Int(0, 1) == 0 ? 2.0f : 0.5f;  // exact in every product
        const double predicted = term.ValueWith(member, ratio);
        term.Multiply(member, ratio);
        scales[static_cast<size_t>(member)] *= ratio;
        fresh.SetScales(scales);
        EXPECT_NEAR(term.value(), fresh.value(), 1e-9 * fresh.value());
        EXPECT_NEAR(predicted, fresh.value(), 1e-6 * fresh.value());
      }
    }
  }
}

}  // namespace
}  // namespace quantmill::test
