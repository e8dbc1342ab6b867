// Norm, Rope, GatedActivation and SoftCap.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
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

constexpr double kU = 0x1p-24;    // one F32 rounding
constexpr double kExp = 0x1p-22;  // relative error of a backend's exp
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

// `error` before the result is rounded to `dtype`. What was wanted comes in F32, rounded too; the
// last term covers subnormal results.
double Stored(DType dtype, double want, double error) {
  return error + test::UnitRoundoff(dtype) * (std::abs(want) + error) + kU * std::abs(want) +
         0x1p-120;
}

// ---- norm ----

class NormTest : public BackendTest {
 protected:
  Tensor Run(ConstMatrix x, NormParams params, DType out_type) {
    const Tensor gain = OnDevice(params.gain);
    params.gain = gain;
    Tensor bias;
    if (params.bias.size() > 0) {
      bias = OnDevice(params.bias);
      params.bias = bias;
    }
    const Tensor out = Empty(out_type, x.rows, x.cols);
    backend().Norm(exec(), OnDevice(x), params, out);
    return OnHost(out);
  }

  // With n features, any order of summation: the mean is off by n u mean|x|, a difference d by that
  // and u |d|; the variance by n u of itself and the effect of the differences' error; its root by
  // half of that. Four more roundings follow.
  void ExpectMatches(ConstMatrix x, const NormParams& params, DType out_type) {
    const Tensor want = HostTensor(DType::kF32, x.rows, x.cols);
    reference().Norm(reference_exec(), x, params, want);
    const auto n = static_cast<double>(x.cols);
    const bool layer = params.kind == NormKind::kLayer;
    const auto bound = [&](int64_t r, int64_t c, double y) {
      const float* row = x.Row<float>(r);
      double mean = 0;
      double magnitude = 0;
      for (int64_t i = 0; i < x.cols; ++i) {
        mean += layer ? row[i] / n : 0;
        magnitude += std::abs(row[i]) / n;
      }
      const double mean_error = layer ? (n + 1) * kU * magnitude : 0;
      double variance = 0;
      double deviation = 0;
      for (int64_t i = 0; i < x.cols; ++i) {
        variance += (row[i] - mean) * (row[i] - mean) / n;
        deviation += std::abs(row[i] - mean) / n;
      }
      variance += double{params.eps};
      const double variance_error = (n + 3) * kU * variance +
                                    2 * deviation * (mean_error + kU * deviation) +
                                    mean_error * mean_error;
      const double gain = double{params.gain.Row<float>(0)[c]} + double{params.gain_offset};
      const double bias = params.bias.size() > 0 ? params.bias.Row<float>(0)[c] : 0;
      const double error = std::abs(gain) / std::sqrt(variance) * mean_error +
                           std::abs(y - bias) * (0.5 * variance_error / variance + 5 * kU) +
                           kU * (std::abs(y) + std::abs(bias));
      return Stored(out_type, y, error);
    };
    EXPECT_TRUE(Within(Run(x, params, out_type), want, bound));
  }
};

TEST_P(NormTest, MatchesReference) {
  Random random(1);
  for (const int64_t features : {1, 2, 15, 16, 17, 64, 131, 576, 1031}) {
    SCOPED_TRACE(features);
    const Tensor gain = NormalMatrix(random, DType::kF32, 1, features);
    const Tensor bias = NormalMatrix(random, DType::kF32, 1, features);
    Tensor x = NormalMatrix(random, DType::kF32, 7, features, 3);
    test::Fill(x.view().Rows(3, 1), 0);
    NormParams params;
    params.gain = gain;
    for (const DType out : {DType::kF32, DType::kBF16}) {
      params.kind = NormKind::kRms;
      params.bias = {};
      params.gain_offset = 0;
      ExpectMatches(x, params, out);
      params.gain_offset = 1;
      ExpectMatches(x, params, out);
      params.kind = NormKind::kLayer;
      params.gain_offset = 0;
      ExpectMatches(x, params, out);
      params.bias = bias;
      ExpectMatches(x, params, out);
    }
  }
}

TEST_P(NormTest, LayerNormOfRowsFarFromZero) {
  Random random(2);
  Tensor x = NormalMatrix(random, DType::kF32, 3, 200);
  for (int64_t i = 0; i < 200; ++i) x.Row<float>(1)[i] += 1000;
  const Tensor gain = NormalMatrix(random, DType::kF32, 1, 200);
  NormParams params;
  params.kind = NormKind::kLayer;
  params.gain = gain;
  ExpectMatches(x, params, DType::kF32);
}

TEST_P(NormTest, NaNStaysInItsRow) {
  Random random(3);
  Tensor x = NormalMatrix(random, DType::kF32, 3, 65);
  x.Row<float>(1)[64] = kNaN;
  const Tensor gain = NormalMatrix(random, DType::kF32, 1, 65);
  NormParams params;
  params.gain = gain;
  for (const NormKind kind : {NormKind::kRms, NormKind::kLayer}) {
    params.kind = kind;
    const Tensor got = Run(x, params, DType::kF32);
    for (int64_t i = 0; i < 65; ++i) {
      EXPECT_TRUE(std::isnan(got.Row<float>(1)[i]));
      EXPECT_TRUE(std::isfinite(got.Row<float>(0)[i]) && std::isfinite(got.Row<float>(2)[i]));
    }
  }
}

TEST_P(NormTest, InPlaceOneRowAtATimeAndOnOtherThreads) {
  Random random(4);
  const int64_t rows = 150;  // several tasks
  const Tensor x = NormalMatrix(random, DType::kF32, rows, 577);
  const Tensor gain = NormalMatrix(random, DType::kF32, 1, 577);
  NormParams params;
  params.gain = gain;
  const Tensor want = Run(x, params, DType::kF32);
  for (const int64_t r : {int64_t{0}, int64_t{77}, rows - 1}) {
    EXPECT_TRUE(SameBits(Run(x.view().Rows(r, 1), params, DType::kF32), want.view().Rows(r, 1)));
  }
  for (const int threads : {1, 3}) {
    const auto other = WithThreads(threads);
    const Tensor in_place = other->OnDevice(x);
    const Tensor device_gain = other->OnDevice(gain);
    params.gain = device_gain;
    other->backend().Norm(other->exec(), in_place, params, in_place);
    EXPECT_TRUE(SameBits(other->OnHost(in_place), want));
  }
  params.gain = gain;
  EXPECT_EQ(Run(x.view().Rows(0, 0), params, DType::kF32).rows(), 0);
}

QUANTMILL_ALL_BACKENDS(NormTest);

// ---- rope ----

class ConvertTest : public BackendTest {};

TEST_P(ConvertTest, MatchesReference) {
  Random random(7);
  const Tensor x = NormalMatrix(random, DType::kF32, 5, 67);
  x.Row<float>(2)[3] = static_cast<float>(kNaN);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Tensor got = Empty(dtype, 5, 67);
    const Tensor want = HostTensor(dtype, 5, 67);
    backend().Convert(exec(), OnDevice(x), got);
    reference().Convert(reference_exec(), x, want);
    EXPECT_TRUE(SameBits(OnHost(got), want)) << quantmill::NameOf(dtype);
    EXPECT_TRUE(std::isnan(test::At(want, 2, 3)));
    EXPECT_EQ(test::At(want, 0, 0), RoundTo(dtype, x.Row<float>(0)[0]));
  }
}
QUANTMILL_ALL_BACKENDS(ConvertTest);

class RopeTest : public BackendTest {
 protected:
  static std::vector<float> Frequencies(int64_t rotary_dim) {
    std::vector<float> inv_freq;
    for (int64_t i = 0; i < rotary_dim / 2; ++i) {
      inv_freq.push_back(static_cast<float>(
          std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(rotary_dim))));
    }
    return inv_freq;
  }
  // One sequence per (context, tokens).
  static std::vector<SequenceStep> Steps(const std::vector<std::pair<int64_t, int64_t>>& lengths,
                                         std::span<const int32_t> table) {
    std::vector<SequenceStep> steps;
    int64_t row = 0;
    for (const auto& [context, tokens] : lengths) {
      steps.push_back({row, tokens, context, table});
      row += tokens;
    }
    return steps;
  }
  static Tensor RunOn(Backend& backend, Exec& exec, std::span<const SequenceStep> steps,
                      const RopeParams& params, ConstMatrix x) {
    const auto plan = backend.PlanBatch(exec, steps);
    const Tensor device = backend.Empty(DType::kF32, x.rows, x.cols);
    backend.Upload(exec, x, device);
    backend.Rope(exec, *plan, params, device);
    Tensor host = HostTensor(DType::kF32, x.rows, x.cols);
    backend.Download(exec, device, host);
    return host;
  }
};

// cos and sin are rounded once and once more by the amplitude; two products, one of which may be
// fused, and their sum.
TEST_P(RopeTest, MatchesReference) {
  const std::vector<int32_t> table(8192, 0);
  const auto steps = Steps({{0, 5}, {3, 0}, {100000, 1}, {17, 33}, {0, 70}}, table);
  const int64_t rows = 109;
  Random random(10);
  for (const auto& [head_dim, rotary_dim] :
       {std::pair<int64_t, int64_t>{64, 64}, {80, 32}, {96, 96}, {128, 128}, {20, 10}, {64, 0}}) {
    for (const float amplitude : {1.0f, 1.3f}) {
      const std::vector<float> inv_freq = Frequencies(rotary_dim);
      const RopeParams params{head_dim, rotary_dim, inv_freq, amplitude};
      const Tensor x = NormalMatrix(random, DType::kF32, rows, 3 * head_dim);
      const Tensor got = RunOn(backend(), exec(), steps, params, x);
      const Tensor want = RunOn(reference(), reference_exec(), steps, params, x);
      const auto bound = [&](int64_t r, int64_t c, double y) {
        const int64_t in_head = c % head_dim;
        if (in_head >= rotary_dim) return 0.0;
        const int64_t half = rotary_dim / 2;
        const int64_t other = in_head < half ? c + half : c - half;
        const double magnitude = std::hypot(x.Row<float>(r)[c], x.Row<float>(r)[other]);
        return Stored(DType::kF32, y, 4 * kU * 1.5 * magnitude * double{amplitude});
      };
      EXPECT_TRUE(Within(got, want, bound)) << "head_dim " << head_dim;
    }
  }
}

// A plan keeps tables: two kinds of layer take turns on one plan.
TEST_P(RopeTest, SeveralFrequenciesOnOnePlan) {
  const std::vector<int32_t> table(64, 0);
  const auto steps = Steps({{5, 20}, {30, 2}}, table);
  Random random(11);
  const Tensor x = NormalMatrix(random, DType::kF32, 22, 128);
  const std::vector<float> local = Frequencies(64);
  std::vector<float> global = local;
  for (float& f : global) f /= 8;
  const RopeParams kinds[] = {{64, 64, local, 1}, {64, 64, global, 1}, {64, 64, local, 0.5f}};
  const auto plan = backend().PlanBatch(exec(), steps);
  for (int round = 0; round < 2; ++round) {
    for (const RopeParams& params : kinds) {
      const Tensor device = OnDevice(x);
      backend().Rope(exec(), *plan, params, device);
      EXPECT_TRUE(SameBits(OnHost(device), RunOn(backend(), exec(), steps, params, x)));
    }
  }
}

TEST_P(RopeTest, RowsDependOnTheirPositionAlone) {
  const std::vector<int32_t> table(64, 0);
  const std::vector<float> inv_freq = Frequencies(64);
  const RopeParams params{64, 64, inv_freq, 1};
  Random random(12);
  const Tensor x = NormalMatrix(random, DType::kF32, 300, 192);
  const auto all = Steps({{0, 300}}, table);
  const Tensor want = RunOn(backend(), exec(), all, params, x);
  for (const int64_t r : {0, 1, 255, 299}) {
    EXPECT_TRUE(
        SameBits(RunOn(backend(), exec(), Steps({{r, 1}}, table), params, x.view().Rows(r, 1)),
                 want.view().Rows(r, 1)));
  }
  for (const int threads : {1, 3}) {
    const auto other = WithThreads(threads);
    EXPECT_TRUE(SameBits(RunOn(other->backend(), other->exec(), all, params, x), want));
  }
}

QUANTMILL_ALL_BACKENDS(RopeTest);

// ---- activations ----

class ActivationTest : public BackendTest {
 protected:
  Tensor Run(Activation activation, ConstMatrix gate, ConstMatrix up, DType out_type) {
    const Tensor out = Empty(out_type, gate.rows, gate.cols);
    const Tensor device_gate = OnDevice(gate);
    const Tensor device_up = up.data == nullptr ? Tensor() : OnDevice(up);
    backend().GatedActivation(exec(), activation, device_gate, device_up, out);
    return OnHost(out);
  }

  // Relative error of activation(x).
  static double Relative(Activation activation, double x) {
    switch (activation) {
      case Activation::kSilu:
        return kExp + 3 * kU;
      case Activation::kGeluTanh: {
        // Four roundings of the exponent 2u, then exp, a sum and a quotient.
        const double u = std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x);
        return std::min(1.0, 4 * kU * std::abs(2 * u)) + kExp + 4 * kU;
      }
      case Activation::kGelu:
        // The fit's 1.2e-7; the exponent x^2 / 2, rounded thrice; the fit's own exponent, ten steps
        // of which the terms add up to 3; exp and five more roundings.
        return 1.2e-7 + 3 * kU * x * x / 2 + 10 * 3 * kU + kExp + 5 * kU;
      case Activation::kRelu:
        return 0;
    }
    return 0;
  }

  void ExpectMatches(Activation activation, ConstMatrix gate, ConstMatrix up, DType out_type) {
    const Tensor want = HostTensor(DType::kF32, gate.rows, gate.cols);
    reference().GatedActivation(reference_exec(), activation, gate, up, want);
    const auto bound = [&](int64_t r, int64_t c, double y) {
      const double relative = Relative(activation, gate.Row<float>(r)[c]) + kU;
      // Where exp overflows, silu is 0 instead of a number below 2^-120.
      const double scale = up.data == nullptr ? 1 : std::abs(up.Row<float>(r)[c]) + 1;
      return Stored(out_type, y, relative * std::abs(y)) + scale * 0x1p-119;
    };
    EXPECT_TRUE(Within(Run(activation, gate, up, out_type), want, bound));
  }
};

constexpr Activation kAll[] = {Activation::kSilu, Activation::kGeluTanh, Activation::kGelu,
                               Activation::kRelu};

TEST_P(ActivationTest, MatchesReference) {
  Random random(20);
  for (const Activation activation : kAll) {
    SCOPED_TRACE(static_cast<int>(activation));
    for (const int64_t cols : {1, 15, 16, 17, 1031}) {
      const Tensor gate = NormalMatrix(random, DType::kF32, 5, cols, 2);
      const Tensor up = NormalMatrix(random, DType::kF32, 5, cols);
      for (const DType out : {DType::kF32, DType::kBF16}) {
        ExpectMatches(activation, gate, up, out);
        ExpectMatches(activation, gate, {}, out);
      }
    }
    // The whole range, densely: both tails, where results vanish, and zero.
    const int64_t half = 1 << 15;
    const int64_t n = 2 * half;
    const Tensor sweep = HostTensor(DType::kF32, 1, n);
    for (int64_t i = 0; i < n; ++i) {
      sweep.Row<float>(0)[i] = static_cast<float>(i - half) * (120.0f / static_cast<float>(half));
    }
    ExpectMatches(activation, sweep, {}, DType::kF32);
    for (int64_t i = 0; i < n; ++i) sweep.Row<float>(0)[i] /= 15;
    ExpectMatches(activation, sweep, {}, DType::kF32);
  }
}

TEST_P(ActivationTest, SpecialValues) {
  Tensor gate = HostTensor(DType::kF32, 1, 6);
  const float values[] = {kNaN, kInfinity, 0.0f, -0.0f, 1e30f, -1e30f};
  std::copy_n(values, 6, gate.Row<float>(0));
  for (const Activation activation : kAll) {
    SCOPED_TRACE(static_cast<int>(activation));
    const Tensor got = Run(activation, gate, {}, DType::kF32);
    const float* y = got.Row<float>(0);
    EXPECT_TRUE(std::isnan(y[0]));
    EXPECT_EQ(y[1], kInfinity);
    EXPECT_EQ(y[2], 0.0f);
    EXPECT_EQ(y[3], 0.0f);
    EXPECT_EQ(y[4], 1e30f);
    EXPECT_EQ(y[5], 0.0f);
  }
}

TEST_P(ActivationTest, InPlaceAndOnOtherThreads) {
  Random random(21);
  const Tensor gate = NormalMatrix(random, DType::kF32, 100, 1000);
  const Tensor up = NormalMatrix(random, DType::kF32, 100, 1000);
  const Tensor want = Run(Activation::kSilu, gate, up, DType::kF32);
  for (const int threads : {1, 3}) {
    const auto other = WithThreads(threads);
    const Tensor in_place = other->OnDevice(gate);
    other->backend().GatedActivation(other->exec(), Activation::kSilu, in_place,
                                     other->OnDevice(up), in_place);
    EXPECT_TRUE(SameBits(other->OnHost(in_place), want));
  }
  EXPECT_EQ(
      Run(Activation::kSilu, gate.view().Rows(0, 0), up.view().Rows(0, 0), DType::kBF16).rows(), 0);
}

QUANTMILL_ALL_BACKENDS(ActivationTest);

// ---- soft cap ----

class SoftCapTest : public BackendTest {};

TEST_P(SoftCapTest, MatchesReference) {
  const int64_t n = 40003;
  for (const float cap : {1.0f, 30.0f, 50.0f}) {
    Tensor x = HostTensor(DType::kF32, 2, n);
    for (int64_t i = 0; i < n; ++i) {
      // From the smallest normal numbers to many times the cap.
      const double magnitude = std::exp2(-126 + 140.0 * static_cast<double>(i) / n);
      x.Row<float>(0)[i] = static_cast<float>(magnitude);
      x.Row<float>(1)[i] = static_cast<float>(-magnitude);
    }
    x.Row<float>(0)[1] = kNaN;
    x.Row<float>(0)[2] = kInfinity;
    x.Row<float>(1)[2] = -kInfinity;
    x.Row<float>(1)[3] = 0;
    const Tensor got = OnDevice(x);
    backend().SoftCap(exec(), cap, got);
    reference().SoftCap(reference_exec(), cap, x);
    // tanh, after a quotient whose error it does not increase, and a product.
    const auto bound = [](int64_t, int64_t, double y) {
      return Stored(DType::kF32, y, std::abs(y) * (0x1p-21 + 2 * kU));
    };
    EXPECT_TRUE(Within(OnHost(got), x, bound)) << cap;
  }
}

QUANTMILL_ALL_BACKENDS(SoftCapTest);

}  // namespace
}  // namespace quantmill
