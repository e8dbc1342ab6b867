#include "quant/solve/asymmetric_target.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "statistics.h"
#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

// Inputs of a layer behind quantized ones, and behind the originals.
struct Inputs {
  Tensor quantized;  // [tokens, in]
  Tensor full;
};

class AsymmetricTargetTest : public BackendTest {
 protected:
  // full = quantized (I + mix / in) + noise: a difference that the quantized input can explain, and
  // one that it cannot.
  static Inputs Make(Random& random, int64_t tokens, int64_t in, double mixing, double noise) {
    Inputs inputs{NormalMatrix(random, DType::kF32, tokens, in),
                  HostTensor(DType::kF32, tokens, in)};
    const Tensor mix = NormalMatrix(random, DType::kF32, in, in);
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t j = 0; j < in; ++j) {
        double value = At(inputs.quantized, t, j) + noise * random.Normal();
        for (int64_t i = 0; i < in; ++i) {
          value += mixing * At(inputs.quantized, t, i) * At(mix, i, j) / static_cast<double>(in);
        }
        inputs.full.Row<float>(t)[j] = static_cast<float>(value);
      }
    }
    return inputs;
  }

  // The last quarter of the tokens is held out.
  CrossStatistics Cross(const Inputs& x) {
    const int64_t tokens = x.quantized.rows();
    const int64_t fitted = tokens * 3 / 4;
    CrossStatistics cross;
    cross.fitted = Summed(x, 0, fitted);
    cross.held = Summed(x, fitted, tokens - fitted);
    cross.fitted_share = 0.75;
    cross.held_share = 0.25;
    return cross;
  }
  Tensor Summed(const Inputs& x, int64_t begin, int64_t count) {
    Tensor sum = Empty(DType::kF32, x.quantized.cols(), x.quantized.cols());
    backend().Zero(exec(), sum);
    backend().AddCross(exec(), OnDevice(x.quantized).view().Rows(begin, count),
                       OnDevice(x.full).view().Rows(begin, count), sum);
    return sum;
  }
  GptqFactor Factor(const Inputs& x) {
    Tensor gram = Empty(DType::kF32, x.quantized.cols(), x.quantized.cols());
    backend().Zero(exec(), gram);
    backend().AddGram(exec(), OnDevice(x.quantized), gram);
    return PrepareGptq(backend(), exec(), std::move(gram), {.damp_percent = 0.001});
  }
};
QUANTMILL_ALL_BACKENDS(AsymmetricTargetTest);

// |W x_fp - V x_q|^2 over all tokens.
double OutputDifference(const Inputs& x, ConstMatrix weight, ConstMatrix other) {
  double sum = 0;
  for (int64_t t = 0; t < x.full.rows(); ++t) {
    for (int64_t o = 0; o < weight.rows; ++o) {
      double d = 0;
      for (int64_t i = 0; i < weight.cols; ++i) {
        d += At(weight, o, i) * At(x.full, t, i) - At(other, o, i) * At(x.quantized, t, i);
      }
      sum += d * d;
    }
  }
  return sum;
}

// One input: H = sum x^2 = 4, C = sum (y - x) x = 2 over the fitted half, 2 over the held one: the
// layer must be 1 + 4 / (4 + damp) times as large.
TEST_P(AsymmetricTargetTest, OneInputByHand) {
  Inputs x{HostTensor(DType::kF32, 4, 1), HostTensor(DType::kF32, 4, 1)};
  for (int64_t t = 0; t < 4; ++t) {
    x.quantized.Row<float>(t)[0] = 1;
    x.full.Row<float>(t)[0] = 2;
  }
  const GptqFactor factor = Factor(x);
  CrossStatistics cross;
  cross.fitted = Summed(x, 0, 2);
  cross.held = Summed(x, 2, 2);
  cross.fitted_share = cross.held_share = 0.5;
  const float three = 3;
  const AsymmetricTarget got =
      CorrectTarget(backend(), exec(), factor, cross, OnDevice(ViewOf(&three, 1, 1)));
  // The shift is 3 * 4 / 4.004; the strength that the held-out tokens ask for is 1.001, cut to 1.
  EXPECT_EQ(got.strength, 1);
  EXPECT_NEAR(OnHost(got.target).Row<float>(0)[0], 3 + 3 * 4 / 4.004, 1e-5);
}

TEST_P(AsymmetricTargetTest, ReproducesTheFullOutputFromTheQuantizedInput) {
  Random random(1);
  const Inputs x = Make(random, 800, 24, 4, 0.1);
  const Tensor weight = NormalMatrix(random, DType::kF32, 10, 24);
  const GptqFactor factor = Factor(x);
  const AsymmetricTarget got = CorrectTarget(backend(), exec(), factor, Cross(x), OnDevice(weight));
  EXPECT_GT(got.strength, 0.95);
  const double before = OutputDifference(x, weight, weight);
  const double after = OutputDifference(x, weight, OnHost(got.target));
  // What is left is the noise, of variance 0.01 at every input, and what a fit to three quarters of
  // the tokens misses.
  double squares = 0;
  for (int64_t i = 0; i < 240; ++i) squares += std::pow(At(weight, i / 24, i % 24), 2);
  EXPECT_GT(after, 0.8 * 800 * 0.01 * squares);
  EXPECT_LT(after, 1.3 * 800 * 0.01 * squares);
  EXPECT_LT(after, 0.2 * before);
}

// Where the difference is noise alone, held-out tokens say so: the weight stays (nearly) itself.
TEST_P(AsymmetricTargetTest, NoiseIsNotFollowed) {
  Random random(2);
  const Inputs x = Make(random, 120, 40, 0, 1);
  const Tensor weight = NormalMatrix(random, DType::kF32, 6, 40);
  const GptqFactor factor = Factor(x);
  const AsymmetricTarget got = CorrectTarget(backend(), exec(), factor, Cross(x), OnDevice(weight));
  EXPECT_LT(got.strength, 0.4);
}

TEST_P(AsymmetricTargetTest, NothingHeldOutLeavesTheWeight) {
  Random random(3);
  const Inputs x = Make(random, 100, 8, 4, 0);
  const Tensor weight = NormalMatrix(random, DType::kF32, 3, 8);
  CrossStatistics cross = Cross(x);
  cross.held_share = 0;
  const AsymmetricTarget got = CorrectTarget(backend(), exec(), Factor(x), cross, OnDevice(weight));
  EXPECT_EQ(got.strength, 0);
  EXPECT_TRUE(std::equal(weight.Row<float>(0), weight.Row<float>(0) + 24,
                         OnHost(got.target).Row<float>(0)));
}

}  // namespace
}  // namespace quantmill::test
