// Grids, codes, the GPTQ solve and quadratic forms against the reference. FactorGram and
// PermuteGram: factor_test.cc.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

class SolveTest : public BackendTest {
 protected:
  struct Codes {
    Tensor scales, zero_points, codes;
  };
  // Grid and codes of `weight`, in host memory.
  static Codes GridAndCodes(BackendRun& run, ConstMatrix weight, const QuantScheme& scheme) {
    const int64_t groups = scheme.GroupsFor(weight.cols);
    const Tensor w = run.OnDevice(weight);
    const Tensor scales = run.Empty(DType::kF32, weight.rows, groups);
    Tensor zeros;
    if (!scheme.symmetric) zeros = run.Empty(DType::kI8, weight.rows, groups);
    const Tensor codes = run.Empty(DType::kI8, weight.rows, weight.cols);
    run.backend().MinMaxGrid(run.exec(), w, scheme, scales, zeros);
    run.backend().RoundToGrid(run.exec(), w, scheme, scales, zeros, codes);
    return {run.OnHost(scales), scheme.symmetric ? Tensor() : run.OnHost(zeros), run.OnHost(codes)};
  }
  BackendRun& reference_run() { return reference_run_; }

 private:
  BackendRun reference_run_{ReferenceBackend()};
};
QUANTMILL_ALL_BACKENDS(SolveTest);

Tensor RowOf(const std::vector<float>& values) {
  Tensor row = HostTensor(DType::kF32, 1, static_cast<int64_t>(values.size()));
  std::copy(values.begin(), values.end(), row.Row<float>(0));
  return row;
}

std::vector<int> CodesOf(ConstMatrix codes, int64_t row = 0) {
  return {codes.Row<int8_t>(row), codes.Row<int8_t>(row) + codes.cols};
}

// formats.md section 2.3: 2 / 15 in F16 is 0x3044; section 4.3: in BF16 0x3E09.
TEST_P(SolveTest, WorkedExampleOfFourBits) {
  const Tensor weight = RowOf({-1, 0.5f, 0.25f, 0.75f});
  const QuantScheme f16{.group_size = 4, .scale_dtype = DType::kF16};
  Codes got = GridAndCodes(tested(), weight, f16);
  EXPECT_EQ(ToF16(got.scales.Row<float>(0)[0]).bits, 0x3044);
  EXPECT_EQ(got.scales.Row<float>(0)[0], ToFloat(F16{0x3044}));
  EXPECT_EQ(CodesOf(got.codes), (std::vector<int>{-8, 4, 2, 6}));
  const QuantScheme bf16{.group_size = 4, .scale_dtype = DType::kBF16};
  got = GridAndCodes(tested(), weight, bf16);
  EXPECT_EQ(got.scales.Row<float>(0)[0], ToFloat(BF16{0x3E09}));
}

// lo = -1, hi = 2: scale 0.2, zero point rint(-8 + 5) = -3; the range is widened to hold 0.
TEST_P(SolveTest, WorkedExamplesOfAsymmetricGrids) {
  const QuantScheme scheme{.symmetric = false, .group_size = 3, .scale_dtype = DType::kF32};
  const Codes got = GridAndCodes(tested(), RowOf({-1, 2, 0, 3, 1.5f, 0.75f, -15, -1, -7}), scheme);
  EXPECT_EQ(got.scales.Row<float>(0)[0], 3.0f / 15);
  EXPECT_EQ(got.scales.Row<float>(0)[1], 3.0f / 15);
  EXPECT_EQ(got.scales.Row<float>(0)[2], 1.0f);
  EXPECT_EQ(CodesOf(got.zero_points), (std::vector<int>{-3, -8, 7}));
  EXPECT_EQ(CodesOf(got.codes), (std::vector<int>{-8, 7, -3, 7, 0, -4, -8, 6, 0}));
}

TEST_P(SolveTest, ScalesThatVanish) {
  for (const DType dtype : {DType::kF16, DType::kBF16, DType::kF32}) {
    const QuantScheme scheme{.group_size = 2, .scale_dtype = dtype};
    const float tiny = dtype == DType::kF16 ? 1e-9f : std::numeric_limits<float>::denorm_min();
    const Codes got = GridAndCodes(tested(), RowOf({0, 0, tiny, 0}), scheme);
    EXPECT_EQ(got.scales.Row<float>(0)[0], 1.0f);
    EXPECT_EQ(got.scales.Row<float>(0)[1], dtype == DType::kF16 ? 0x1p-14f : 0x1p-126f);
    EXPECT_EQ(CodesOf(got.codes), (std::vector<int>{0, 0, 0, 0}));
  }
}

// Ties go to even; far values and infinities saturate.
TEST_P(SolveTest, TiesAndSaturation) {
  const float inf = std::numeric_limits<float>::infinity();
  const Tensor weight = RowOf({0.5f, 1.5f, 2.5f, -0.5f, -1.5f, 7.5f, -8.5f, 1e30f, -1e30f, inf,
                               -inf, -0.0f, 8388609.0f, 7.4999995f, -8, 100, -100, 3.5f, -3.5f});
  const Tensor scales = RowOf({1});
  const Tensor codes = tested().Empty(DType::kI8, 1, weight.cols());
  const QuantScheme scheme{.group_size = QuantScheme::kPerChannel};
  backend().RoundToGrid(exec(), OnDevice(weight), scheme, OnDevice(scales), {}, codes);
  EXPECT_EQ(CodesOf(OnHost(codes)),
            (std::vector<int>{0, 2, 2, 0, -2, 7, -8, 7, -8, 7, -8, 0, 7, 7, -8, 7, -8, 4, -4}));
}

TEST_P(SolveTest, GridAndCodesEqualTheReference) {
  Random random(7);
  for (const int64_t in : {0, 1, 15, 16, 31, 64, 127, 128, 129, 300}) {
    for (const int64_t out : {0, 1, 7, 33}) {
      Tensor weight = NormalMatrix(random, DType::kF32, out, in, 0.02);
      for (int64_t r = 0; r < out; ++r) {
        float* row = weight.Row<float>(r);
        if (r == 1) std::fill_n(row, in, 0.0f);
        if (r == 2) std::fill_n(row, in, 0.25f);  // constant
        if (r == 3) std::transform(row, row + in, row, [](float x) { return -std::abs(x); });
        if (r == 4) std::transform(row, row + in, row, [](float x) { return x * 1e-7f; });
        if (r == 5) std::transform(row, row + in, row, [](float x) { return x * 1e5f; });
      }
      for (int bits = 2; bits <= 8; ++bits) {
        for (const int64_t group : {int64_t{32}, int64_t{128}, QuantScheme::kPerChannel}) {
          const QuantScheme scheme{.bits = bits,
                                   .symmetric = bits % 2 == 0,
                                   .group_size = group,
                                   .scale_dtype = bits % 3 == 0   ? DType::kF16
                                                  : bits % 3 == 1 ? DType::kBF16
                                                                  : DType::kF32};
          const Codes got = GridAndCodes(tested(), weight, scheme);
          const Codes want = GridAndCodes(reference_run(), weight, scheme);
          const std::string where =
              Describe(scheme) + " out " + std::to_string(out) + " in " + std::to_string(in);
          ASSERT_TRUE(SameBits(got.scales, want.scales)) << where;
          ASSERT_TRUE(SameBits(got.codes, want.codes)) << where;
          if (!scheme.symmetric) {
            ASSERT_TRUE(SameBits(got.zero_points, want.zero_points)) << where;
          }
        }
      }
    }
  }
}

using SolveDeathTest = SolveTest;
QUANTMILL_ALL_BACKENDS(SolveDeathTest);

TEST_P(SolveDeathTest, NanWeightIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  for (const size_t at : {size_t{0}, size_t{20}}) {  // in a whole vector, and in the tail
    std::vector<float> values(21, 1.0f);
    values[at] = std::numeric_limits<float>::quiet_NaN();
    const Tensor weight = OnDevice(RowOf(values));
    const Tensor scales = OnDevice(RowOf({1}));
    const Tensor codes = tested().Empty(DType::kI8, 1, 21);
    const QuantScheme scheme{.group_size = QuantScheme::kPerChannel};
    EXPECT_DEATH(backend().RoundToGrid(exec(), weight, scheme, scales, {}, codes), "NaN");
  }
}

// ---- quadratic form ----

// G in the strict lower triangle, noise elsewhere, which must not be read.
Tensor NoisyLower(Random& random, int64_t n) { return NormalMatrix(random, DType::kF32, n, n); }

TEST_P(SolveTest, QuadraticFormMatchesReference) {
  Random random(11);
  for (const int64_t in : {0, 1, 3, 8, 31, 64, 127, 128, 129, 257, 300}) {
    for (const int64_t out : {0, 1, 31, 33, 67}) {
      const Tensor gram = NoisyLower(random, in);
      const Tensor diagonal = NormalMatrix(random, DType::kF32, 1, in);
      const Tensor delta = NormalMatrix(random, DType::kF32, out, in);
      const Tensor got = Empty(DType::kF32, 1, out);
      backend().QuadraticForm(exec(), OnDevice(delta), OnDevice(gram), OnDevice(diagonal), got);
      const Tensor want = HostTensor(DType::kF32, 1, out);
      reference().QuadraticForm(reference_exec(), delta, gram, diagonal, want);
      EXPECT_TRUE(Within(OnHost(got), want,
                         [&](int64_t, int64_t row, double value) {
                           const float* d = delta.Row<float>(row);
                           double magnitude = 0;
                           for (int64_t i = 0; i < in; ++i) {
                             magnitude += std::abs(diagonal.Row<float>(0)[i] * d[i] * d[i]);
                             for (int64_t j = 0; j < i; ++j) {
                               magnitude += 2 * std::abs(d[i] * gram.Row<float>(i)[j] * d[j]);
                             }
                           }
                           // F32 sums are at most 256 long, then 8 rows; the rest is F64.
                           return DotBound(256 + 8 + 3, magnitude, value, 0x1p-24, 0x1p-24);
                         }))
          << "in " << in << " out " << out;
    }
  }
}

TEST_P(SolveTest, QuadraticFormOfManyRows) {
  Random random(12);
  const int64_t in = 3;
  const int64_t out = 8197;
  const Tensor gram = NoisyLower(random, in);
  const Tensor diagonal = NormalMatrix(random, DType::kF32, 1, in);
  const Tensor delta = NormalMatrix(random, DType::kF32, out, in);
  const Tensor got = Empty(DType::kF32, 1, out);
  backend().QuadraticForm(exec(), OnDevice(delta), OnDevice(gram), OnDevice(diagonal), got);
  const Tensor want = HostTensor(DType::kF32, 1, out);
  reference().QuadraticForm(reference_exec(), delta, gram, diagonal, want);
  // Nine terms of a few units each.
  EXPECT_TRUE(Within(OnHost(got), want, [](int64_t, int64_t, double) { return 1e-4; }));
}

// ---- GPTQ ----

struct Problem {
  Tensor weight, factor, scales, zero_points;
  std::vector<int32_t> order;
  QuantScheme scheme;
};

struct Solved {
  Tensor codes, loss;
};

Solved Solve(BackendRun& run, const Problem& p) {
  const Tensor weight = run.OnDevice(p.weight);
  const Tensor factor = run.OnDevice(p.factor);
  const Tensor scales = run.OnDevice(p.scales);
  Tensor zeros;
  if (!p.scheme.symmetric) zeros = run.OnDevice(p.zero_points);
  const Tensor codes = run.Empty(DType::kI8, p.weight.rows(), p.weight.cols());
  const Tensor loss = run.Empty(DType::kF32, 1, p.weight.rows());
  run.backend().GptqSolve(run.exec(), {weight, factor, p.order, p.scheme, scales, zeros}, codes,
                          loss);
  return {run.OnHost(codes), run.OnHost(loss)};
}

std::vector<int32_t> Shuffled(Random& random, int64_t n) {
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[static_cast<size_t>(random.Int(0, static_cast<int64_t>(i) - 1))]);
  }
  return order;
}

// Everything is a multiple of a power of two and short, so that every sum is exact in F32 and every
// tie is a tie: codes must equal the reference's. R couples column k with k + 3 and k + 37, inside
// a block and across blocks; chains end after some steps, before the bits run out.
Problem ExactProblem(Random& random, int64_t out, int64_t in, const QuantScheme& scheme) {
  Problem p{HostTensor(DType::kF32, out, in),
            HostTensor(DType::kF32, in, in),
            HostTensor(DType::kF32, out, scheme.GroupsFor(in)),
            {},
            Shuffled(random, in),
            scheme};
  for (int64_t o = 0; o < out; ++o) {
    for (int64_t i = 0; i < in; ++i) {
      p.weight.Row<float>(o)[i] = static_cast<float>(random.Int(-200, 200)) / 16;
    }
    for (int64_t g = 0; g < p.scales.cols(); ++g) {
      p.scales.Row<float>(o)[g] = random.Int(0, 1) == 0 ? 1.0f : 0.5f;
    }
  }
  Fill(p.factor, 0);
  for (int64_t k = 0; k < in; ++k) {
    float* row = p.factor.Row<float>(k);
    row[k] = random.Int(0, 1) == 0 ? 1.0f : 2.0f;
    if (k + 3 < in && k % 9 < 4) row[k + 3] = 0.5f;
    if (k + 37 < in && k % 4 == 1) row[k + 37] = -0.5f;
    for (int64_t j = 0; j < k; ++j) row[j] = 1e30f;  // below the diagonal: must not be read
  }
  if (!scheme.symmetric) {
    p.zero_points = HostTensor(DType::kI8, out, scheme.GroupsFor(in));
    for (int64_t o = 0; o < out; ++o) {
      for (int64_t g = 0; g < p.scales.cols(); ++g) {
        Set(p.zero_points, o, g,
            static_cast<double>(random.Int(scheme.min_code(), scheme.max_code())));
      }
    }
  }
  return p;
}

TEST_P(SolveTest, GptqOfExactNumbersEqualsTheReference) {
  Random random(3);
  for (const int64_t in : {1, 31, 127, 128, 129, 257}) {
    for (const int64_t out : {0, 1, 31, 33, 67}) {
      for (const int bits : {2, 3, 4, 8}) {
        const QuantScheme scheme{.bits = bits,
                                 .symmetric = bits != 3 && out != 33,
                                 .group_size = in == 128   ? 32
                                               : in == 257 ? 100
                                                           : QuantScheme::kPerChannel};
        const Problem problem = ExactProblem(random, out, in, scheme);
        const Solved got = Solve(tested(), problem);
        const Solved want = Solve(reference_run(), problem);
        ASSERT_TRUE(SameBits(got.codes, want.codes))
            << Describe(scheme) << " in " << in << " out " << out;
        ASSERT_TRUE(Within(got.loss, want.loss, [&](int64_t, int64_t, double value) {
          return DotBound(in, value, value, 0x1p-24, 0x1p-24);
        }));
      }
    }
  }
}

// Backends solve rows in chunks.
TEST_P(SolveTest, GptqOfManyRowsEqualsTheReference) {
  Random random(13);
  const Problem problem = ExactProblem(random, 8197, 5, {.bits = 3, .symmetric = false});
  const Solved got = Solve(tested(), problem);
  const Solved want = Solve(reference_run(), problem);
  EXPECT_TRUE(SameBits(got.codes, want.codes));
  EXPECT_TRUE(Within(got.loss, want.loss, [](int64_t, int64_t, double value) {
    return DotBound(5, value, value, 0x1p-24, 0x1p-24);
  }));
}

// Every matrix a part of a wider one: the same bits as of whole ones.
TEST_P(SolveTest, StridedMatricesGiveTheSame) {
  Random random(14);
  const int64_t in = 150;
  const int64_t out = 37;
  const QuantScheme scheme{.bits = 4, .symmetric = false, .group_size = 50};
  const Problem problem = ExactProblem(random, out, in, scheme);
  const Codes grid = GridAndCodes(tested(), problem.weight, scheme);
  const Solved whole = Solve(tested(), problem);
  const auto part_of_wider = [&](ConstMatrix m) {
    Tensor wide = Empty(m.dtype, m.rows, m.cols + 7);
    backend().Upload(exec(), m, wide.view().Cols(3, m.cols));
    exec().stream.Synchronize();
    return wide;
  };
  const auto middle = [](const Tensor& wide) { return wide.view().Cols(3, wide.cols() - 7); };
  const Tensor weight = part_of_wider(problem.weight);
  const Tensor factor = part_of_wider(problem.factor);
  const Tensor scales = part_of_wider(problem.scales);
  const Tensor zeros = part_of_wider(problem.zero_points);
  const Tensor codes = Empty(DType::kI8, out, in + 7);
  const Tensor loss = Empty(DType::kF32, 1, out);
  backend().GptqSolve(
      exec(),
      {middle(weight), middle(factor), problem.order, scheme, middle(scales), middle(zeros)},
      middle(codes), loss);
  EXPECT_TRUE(SameBits(OnHost(middle(codes)), whole.codes));
  EXPECT_TRUE(SameBits(OnHost(loss), whole.loss));
  backend().MinMaxGrid(exec(), middle(weight), scheme, middle(scales), middle(zeros));
  backend().RoundToGrid(exec(), middle(weight), scheme, middle(scales), middle(zeros),
                        middle(codes));
  EXPECT_TRUE(SameBits(OnHost(middle(scales)), grid.scales));
  EXPECT_TRUE(SameBits(OnHost(middle(zeros)), grid.zero_points));
  EXPECT_TRUE(SameBits(OnHost(middle(codes)), grid.codes));
}

// R of H = C + I / 4 with C_ij = 0.9^|i - j|, from the reference.
Tensor CorrelatedFactor(BackendRun& run, int64_t in) {
  Tensor gram = HostTensor(DType::kF32, in, in);
  for (int64_t i = 0; i < in; ++i) {
    for (int64_t j = 0; j < in; ++j) {
      Set(gram, i, j, std::pow(0.9, static_cast<double>(std::abs(i - j))));
    }
  }
  const Tensor diagonal = HostTensor(DType::kF32, 1, in);
  Fill(diagonal, 1);
  EXPECT_TRUE(run.backend().FactorGram(run.exec(), diagonal, 0.25f, Precision::kF32, gram).ok);
  return gram;
}

// A code may flip where a weight lands within rounding of a tie, and the rest of its row may then
// differ; the loss may not, by more than a flip costs. Rows without a flip agree to rounding.
TEST_P(SolveTest, GptqOfRandomWeightsHasTheReferencesLoss) {
  Random random(5);
  for (const int64_t in : {64, 129, 300}) {
    const QuantScheme scheme{.bits = 4, .group_size = 64};
    const Tensor factor = CorrelatedFactor(reference_run(), in);
    const int64_t out = 150;
    Problem p{NormalMatrix(random, DType::kF32, out, in, 0.05),
              HostTensor(DType::kF32, in, in),
              {},
              {},
              Shuffled(random, in),
              scheme};
    reference().Upload(reference_exec(), factor, p.factor);
    p.scales = GridAndCodes(reference_run(), p.weight, scheme).scales;
    const Solved got = Solve(tested(), p);
    const Solved want = Solve(reference_run(), p);
    int64_t flipped_rows = 0;
    for (int64_t o = 0; o < out; ++o) {
      const double loss = want.loss.Row<float>(0)[o];
      const double difference = std::abs(static_cast<double>(got.loss.Row<float>(0)[o]) - loss);
      if (CodesOf(got.codes, o) == CodesOf(want.codes, o)) {
        EXPECT_LE(difference, 2e-4 * loss) << "row " << o;
      } else {
        ++flipped_rows;
        EXPECT_LE(difference, 0.2 * loss) << "row " << o;
      }
    }
    // A weight lies within its error of 1e-5 steps of a tie once in 5e4 weights.
    EXPECT_LE(flipped_rows, 5) << "in " << in;
  }
}

// loss = dW (H + damp I) dW^T, by the other kernel.
TEST_P(SolveTest, LossIsTheQuadraticFormOfTheError) {
  Random random(6);
  const int64_t in = 200;
  const int64_t out = 40;
  const QuantScheme scheme{.bits = 3, .symmetric = false, .group_size = 50};
  const Tensor factor = CorrelatedFactor(reference_run(), in);
  std::vector<int32_t> identity(static_cast<size_t>(in));
  std::iota(identity.begin(), identity.end(), 0);
  Problem p{NormalMatrix(random, DType::kF32, out, in, 0.05),
            HostTensor(DType::kF32, in, in),
            {},
            {},
            identity,
            scheme};
  reference().Upload(reference_exec(), factor, p.factor);
  Codes grid = GridAndCodes(tested(), p.weight, scheme);
  p.scales = std::move(grid.scales);
  p.zero_points = std::move(grid.zero_points);
  const Solved got = Solve(tested(), p);
  const Tensor delta = HostTensor(DType::kF32, out, in);
  for (int64_t o = 0; o < out; ++o) {
    for (int64_t i = 0; i < in; ++i) {
      const int code = got.codes.Row<int8_t>(o)[i] - p.zero_points.Row<int8_t>(o)[i / 50];
      delta.Row<float>(o)[i] =
          static_cast<float>(code) * p.scales.Row<float>(o)[i / 50] - p.weight.Row<float>(o)[i];
    }
  }
  const Tensor diagonal = HostTensor(DType::kF32, 1, in);
  Fill(diagonal, 1.25);
  const Tensor form = Empty(DType::kF32, 1, out);
  backend().QuadraticForm(exec(), OnDevice(delta), OnDevice(p.factor), OnDevice(diagonal), form);
  EXPECT_TRUE(
      Within(got.loss, OnHost(form), [](int64_t, int64_t, double value) { return 2e-4 * value; }));
}

TEST_P(SolveTest, SameBitsForAnyNumberOfThreads) {
  Random random(8);
  const int64_t in = 300;
  const int64_t out = 203;
  const QuantScheme scheme{.bits = 4, .symmetric = false, .group_size = 100};
  Problem p{NormalMatrix(random, DType::kF32, out, in, 0.05),
            CorrelatedFactor(reference_run(), in),
            {},
            {},
            Shuffled(random, in),
            scheme};
  const Tensor gram = NoisyLower(random, in);
  const Tensor diagonal = NormalMatrix(random, DType::kF32, 1, in);
  std::vector<Solved> solved;
  std::vector<Tensor> forms;
  for (const int threads : {1, 2, 3}) {
    const auto run = WithThreads(threads);
    Codes grid = GridAndCodes(*run, p.weight, scheme);
    p.scales = std::move(grid.scales);
    p.zero_points = std::move(grid.zero_points);
    solved.push_back(Solve(*run, p));
    const Tensor form = run->Empty(DType::kF32, 1, out);
    run->backend().QuadraticForm(run->exec(), run->OnDevice(p.weight), run->OnDevice(gram),
                                 run->OnDevice(diagonal), form);
    forms.push_back(run->OnHost(form));
    EXPECT_TRUE(SameBits(solved.back().codes, solved.front().codes));
    EXPECT_TRUE(SameBits(solved.back().loss, solved.front().loss));
    EXPECT_TRUE(SameBits(forms.back(), forms.front()));
  }
  // A row's result does not depend on the rows beside it.
  const int64_t first = 45;
  Problem some{HostTensor(DType::kF32, 5, in),
               HostTensor(DType::kF32, in, in),
               HostTensor(DType::kF32, 5, 3),
               HostTensor(DType::kI8, 5, 3),
               p.order,
               scheme};
  reference().Upload(reference_exec(), p.factor, some.factor);
  reference().Upload(reference_exec(), p.weight.view().Rows(first, 5), some.weight);
  reference().Upload(reference_exec(), p.scales.view().Rows(first, 5), some.scales);
  reference().Upload(reference_exec(), p.zero_points.view().Rows(first, 5), some.zero_points);
  const Solved part = Solve(tested(), some);
  EXPECT_TRUE(SameBits(part.codes, solved.front().codes.view().Rows(first, 5)));
  EXPECT_TRUE(SameBits(part.loss, solved.front().loss.view().Cols(first, 5)));
}

}  // namespace
}  // namespace quantmill::test
