// SearchGrid, RefineCodes, SolveGram and float codes against the reference.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "tests/support/backends.h"
#include "tests/support/random.h"
#include "tests/support/tolerance.h"

namespace quantmill::test {
namespace {

// Schemes of every kind of code, with a group size that the shapes below are cut by.
std::vector<QuantScheme> Schemes() {
  std::vector<QuantScheme> schemes;
  for (const int bits : {2, 3, 4, 8}) {
    for (const bool symmetric : {true, false}) {
      schemes.push_back({.bits = bits,
                         .symmetric = symmetric,
                         .group_size = 16,
                         .scale_dtype = bits == 3 ? DType::kBF16 : DType::kF16});
    }
  }
  schemes.push_back({.bits = 8,
                     .group_size = QuantScheme::kPerChannel,
                     .scale_dtype = DType::kF32,
                     .code_type = CodeType::kFp8});
  schemes.push_back({.group_size = 16, .scale_dtype = DType::kF8E4M3, .code_type = CodeType::kFp4});
  schemes.push_back({.group_size = 32, .scale_dtype = DType::kF8E8M0, .code_type = CodeType::kFp4});
  schemes.push_back({.group_size = 32, .code_type = CodeType::kIq4Nl});
  return schemes;
}

// A positive definite [n, n] matrix: correlated, of uneven diagonal.
Tensor Definite(Random& random, int64_t n) {
  const Tensor x = NormalMatrix(random, DType::kF32, n + 8, n);
  Tensor h = HostTensor(DType::kF32, n, n);
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = i == j ? 0.5 : 0;
      for (int64_t t = 0; t < x.rows(); ++t) sum += At(x, t, i) * At(x, t, j);
      const auto value = static_cast<float>(sum * (1 + 0.1 * static_cast<double>(i % 7)) *
                                            (1 + 0.1 * static_cast<double>(j % 7)));
      h.Row<float>(i)[j] = h.Row<float>(j)[i] = value;
    }
  }
  return h;
}

class SearchTest : public BackendTest {
 protected:
  struct Grid {
    Tensor scales, zeros;
  };
  // A start grid in host memory: absmax over half the range, as it is stored.
  static Grid StartGrid(ConstMatrix weight, const QuantScheme& scheme, float global_scale) {
    const int64_t groups = scheme.GroupsFor(weight.cols);
    const int64_t size = scheme.GroupSizeFor(weight.cols);
    Grid grid{HostTensor(DType::kF32, weight.rows, groups), {}};
    if (!scheme.symmetric) grid.zeros = HostTensor(DType::kI8, weight.rows, groups);
    for (int64_t r = 0; r < weight.rows; ++r) {
      for (int64_t g = 0; g < groups; ++g) {
        float largest = 1e-3f;
        for (int64_t i = g * size; i < std::min(weight.cols, (g + 1) * size); ++i) {
          largest = std::max(largest, std::abs(weight.Row<float>(r)[i]));
        }
        grid.scales.Row<float>(r)[g] =
            RoundTo(scheme.scale_dtype, largest / scheme.half_range() * global_scale) /
            global_scale;
        if (!scheme.symmetric) grid.zeros.Row<int8_t>(r)[g] = static_cast<int8_t>(g % 3 - 1);
      }
    }
    return grid;
  }

  static Grid Searched(BackendRun& run, ConstMatrix weight, ConstMatrix blocks,
                       const QuantScheme& scheme, const GridSearch& search, const Grid& start) {
    const Tensor scales = run.OnDevice(start.scales);
    Tensor zeros;
    if (!scheme.symmetric) zeros = run.OnDevice(start.zeros);
    run.backend().SearchGrid(run.exec(), run.OnDevice(weight), run.OnDevice(blocks), scheme, search,
                             scales, zeros);
    return {run.OnHost(scales), scheme.symmetric ? Tensor() : run.OnHost(zeros)};
  }

  // d B d^T of one group, in double, with the codes that RoundToGrid gives.
  double ErrorOf(ConstMatrix weight, ConstMatrix blocks, const QuantScheme& scheme,
                 const Grid& grid, int64_t row, int64_t group) {
    const int64_t size = scheme.GroupSizeFor(weight.cols);
    const int64_t begin = group * size;
    const int64_t end = std::min(weight.cols, begin + size);
    std::vector<double> d;
    for (int64_t i = begin; i < end; ++i) {
      const float w = weight.Row<float>(row)[i];
      const float scale = grid.scales.Row<float>(row)[group];
      const int zero = scheme.symmetric ? 0 : grid.zeros.Row<int8_t>(row)[group];
      const float quotient = w / scale;
      float number = 0;
      if (scheme.code_type == CodeType::kInt) {
        const auto code = static_cast<int>(std::nearbyint(std::clamp(quotient, -1e3f, 1e3f)));
        number = static_cast<float>(std::clamp(code + zero, scheme.min_code(), scheme.max_code()) -
                                    zero);
      } else {
        number = NumberOf(scheme.code_type, NearestCode(scheme.code_type, quotient));
      }
      d.push_back(static_cast<double>(number * scale) - static_cast<double>(w));
    }
    double sum = 0;
    for (int64_t b = begin; b < end; b += blocks.cols) {
      for (int64_t i = b; i < std::min(end, b + blocks.cols); ++i) {
        for (int64_t j = b; j < std::min(end, b + blocks.cols); ++j) {
          sum += d[static_cast<size_t>(i - begin)] * At(blocks, i, j - b) *
                 d[static_cast<size_t>(j - begin)];
        }
      }
    }
    return sum;
  }

  BackendRun& reference_run() { return reference_run_; }
  Random random_{11};

 private:
  BackendRun reference_run_{ReferenceBackend()};
};
QUANTMILL_ALL_BACKENDS(SearchTest);

// [in, block] rows of the diagonal blocks of h.
Tensor BlocksOf(ConstMatrix h, int64_t block) {
  Tensor blocks = HostTensor(DType::kF32, h.rows, block);
  Fill(blocks, 0);
  for (int64_t i = 0; i < h.rows; ++i) {
    const int64_t begin = i / block * block;
    for (int64_t j = begin; j < std::min(h.rows, begin + block); ++j) {
      blocks.Row<float>(i)[j - begin] = h.Row<float>(i)[j];
    }
  }
  return blocks;
}

const std::vector<float> kCoarse = {1.1f, 0.9f, 0.8f, 0.7f, 0.6f};
const std::vector<float> kFine = {0.05f, -0.05f, 0.02f, -0.02f};

// One weight of 1.5 on the symmetric grid of one bit pair, H = 1. Scale 1: codes -2 .. 1, so 1.5
// is clamped to 1, error 0.25. Factor 0.75: 0.75, error 0.5625. Mirrored at 0.75: -2 * -0.75 = 1.5,
// error 0.
TEST_P(SearchTest, MirroredGridByHand) {
  const float weight = 1.5f, one = 1;
  const QuantScheme scheme{.bits = 2, .group_size = 1, .scale_dtype = DType::kF32};
  const std::vector<float> coarse = {0.75f};
  Grid start{OnHost(OnDevice(ViewOf(&one, 1, 1))), {}};
  GridSearch search;
  search.coarse = coarse;
  const ConstMatrix w = ViewOf(&weight, 1, 1), b = ViewOf(&one, 1, 1);
  EXPECT_EQ(Searched(tested(), w, b, scheme, search, start).scales.Row<float>(0)[0], 1);
  search.mirror = true;
  EXPECT_EQ(Searched(tested(), w, b, scheme, search, start).scales.Row<float>(0)[0], -0.75f);
}

// The choice may differ where two candidates are equally good to F32; the error may not.
TEST_P(SearchTest, AsGoodAsTheReferencesChoice) {
  for (const QuantScheme& scheme : Schemes()) {
    for (const int64_t in : {1, 15, 16, 33, 96}) {
      for (const int64_t out : {1, 31, 37}) {
        const Tensor weight = NormalMatrix(random_, DType::kF32, out, in, 0.05);
        if (out > 1) std::fill_n(weight.Row<float>(1), in, 0.0f);
        const int64_t block = scheme.group_size == QuantScheme::kPerChannel ? 24 : 16;
        const Tensor blocks = BlocksOf(Definite(random_, in), block);
        GridSearch search;
        search.coarse = kCoarse;
        search.fine = kFine;
        search.mirror = scheme.symmetric && scheme.code_type == CodeType::kInt;
        search.global_scale = scheme.has_global_scale() ? 3000.0f : 1.0f;
        const Grid start = StartGrid(weight, scheme, search.global_scale);
        const Grid got = Searched(tested(), weight, blocks, scheme, search, start);
        const Grid want = Searched(reference_run(), weight, blocks, scheme, search, start);
        for (int64_t r = 0; r < out; ++r) {
          for (int64_t g = 0; g < scheme.GroupsFor(in); ++g) {
            const double got_error = ErrorOf(weight, blocks, scheme, got, r, g);
            const double want_error = ErrorOf(weight, blocks, scheme, want, r, g);
            const double start_error = ErrorOf(weight, blocks, scheme, start, r, g);
            const std::string where = Describe(scheme) + " in " + std::to_string(in) + " row " +
                                      std::to_string(r) + " group " + std::to_string(g);
            ASSERT_LE(got_error, start_error * (1 + 1e-4) + 1e-12) << where;
            ASSERT_NEAR(got_error, want_error, 1e-3 * start_error + 1e-12) << where;
            const float stored = got.scales.Row<float>(r)[g] * search.global_scale;
            ASSERT_NEAR(RoundTo(scheme.scale_dtype, std::abs(stored)), std::abs(stored),
                        1e-6f * std::abs(stored))
                << where;
          }
        }
      }
    }
  }
}

TEST_P(SearchTest, ThreadsAndOtherRowsDoNotChangeBits) {
  const QuantScheme scheme{.group_size = 32};
  const Tensor weight = NormalMatrix(random_, DType::kF32, 77, 96, 0.05);
  const Tensor blocks = BlocksOf(Definite(random_, 96), 32);
  GridSearch search;
  search.coarse = kCoarse;
  search.fine = kFine;
  search.mirror = true;
  const Grid start = StartGrid(weight, scheme, 1);
  const Grid all = Searched(tested(), weight, blocks, scheme, search, start);
  const Grid one = Searched(*WithThreads(1), weight, blocks, scheme, search, start);
  EXPECT_TRUE(SameBits(all.scales, one.scales));
  const Grid start_part{OnHost(OnDevice(start.scales.view().Rows(5, 3))), {}};
  const Grid part =
      Searched(tested(), weight.view().Rows(5, 3), blocks, scheme, search, start_part);
  EXPECT_TRUE(SameBits(all.scales.view().Rows(5, 3), part.scales));
}

// Codes of numbers equal the scalar definition, negative scales included.
TEST_P(SearchTest, CodesOfNumbersOfRoundToGrid) {
  for (const CodeType type : {CodeType::kFp8, CodeType::kFp4, CodeType::kIq4Nl}) {
    const QuantScheme scheme{.bits = type == CodeType::kFp8 ? 8 : 4,
                             .group_size = 16,
                             .scale_dtype = DType::kF32,
                             .code_type = type};
    Tensor weight = NormalMatrix(random_, DType::kF32, 9, 50, 100);
    for (int64_t i = 0; i < 50; ++i) weight.Row<float>(0)[i] *= 1e-4f;  // subnormal numbers
    for (int64_t i = 0; i < 50; ++i) weight.Row<float>(1)[i] = static_cast<float>(i) / 4;  // ties
    weight.Row<float>(2)[3] = 1e30f;
    const Tensor scales = HostTensor(DType::kF32, 9, 4);
    for (int64_t r = 0; r < 9; ++r) {
      for (int64_t g = 0; g < 4; ++g) scales.Row<float>(r)[g] = r < 3 ? 1.0f : -0.37f;
    }
    const Tensor codes = Empty(DType::kI8, 9, 50);
    backend().RoundToGrid(exec(), OnDevice(weight), scheme, OnDevice(scales), {}, codes);
    const Tensor got = OnHost(codes);
    for (int64_t r = 0; r < 9; ++r) {
      for (int64_t i = 0; i < 50; ++i) {
        const float quotient = weight.Row<float>(r)[i] / scales.Row<float>(r)[i / 16];
        ASSERT_EQ(got.Row<int8_t>(r)[i], NearestCode(type, quotient)) << quotient;
      }
    }
  }
}

// ---- refinement ----

class RefineTest : public SearchTest {
 protected:
  struct Problem {
    Tensor weight, gram, diagonal, scales, zeros, codes;
    std::vector<int32_t> order;
  };
  Problem Make(const QuantScheme& scheme, int64_t out, int64_t in) {
    Problem p;
    p.weight = NormalMatrix(random_, DType::kF32, out, in, 0.05);
    p.gram = Definite(random_, in);
    p.order.resize(static_cast<size_t>(in));
    std::iota(p.order.begin(), p.order.end(), 0);
    std::reverse(p.order.begin(), p.order.end());
    p.diagonal = HostTensor(DType::kF32, 1, in);
    for (int64_t k = 0; k < in; ++k) p.diagonal.Row<float>(0)[k] = p.gram.Row<float>(k)[k];
    Grid grid = StartGrid(p.weight, scheme, scheme.has_global_scale() ? 3000.0f : 1.0f);
    p.scales = std::move(grid.scales);
    p.zeros = std::move(grid.zeros);
    p.codes = HostTensor(DType::kI8, out, in);
    reference().RoundToGrid(reference_exec(), p.weight, scheme, p.scales, p.zeros, p.codes);
    return p;
  }
  static Tensor Refined(BackendRun& run, const Problem& p, const QuantScheme& scheme, int sweeps) {
    const Tensor weight = run.OnDevice(p.weight), gram = run.OnDevice(p.gram);
    const Tensor scales = run.OnDevice(p.scales), codes = run.OnDevice(p.codes);
    Tensor zeros;
    if (!scheme.symmetric) zeros = run.OnDevice(p.zeros);
    const GptqProblem problem{weight, gram, p.order, scheme, scales, zeros};
    run.backend().RefineCodes(run.exec(), problem, run.OnDevice(p.diagonal), sweeps, codes);
    return run.OnHost(codes);
  }
  // (q - w) G (q - w)^T of one row.
  static double RowError(const Problem& p, const QuantScheme& scheme, ConstMatrix codes,
                         int64_t row) {
    const auto in = static_cast<int64_t>(p.order.size());
    std::vector<double> d;
    for (const int32_t column : p.order) {
      const int64_t group = column / scheme.GroupSizeFor(in);
      const int zero = scheme.symmetric ? 0 : p.zeros.Row<int8_t>(row)[group];
      const int8_t code = codes.Row<int8_t>(row)[column];
      const float number = scheme.code_type == CodeType::kInt ? static_cast<float>(code - zero)
                                                              : NumberOf(scheme.code_type, code);
      d.push_back(static_cast<double>(number * p.scales.Row<float>(row)[group]) -
                  static_cast<double>(p.weight.Row<float>(row)[column]));
    }
    double sum = 0;
    for (size_t i = 0; i < d.size(); ++i) {
      for (size_t j = 0; j < d.size(); ++j) {
        sum +=
            d[i] * d[j] *
            At(p.gram, static_cast<int64_t>(std::max(i, j)), static_cast<int64_t>(std::min(i, j)));
      }
    }
    return sum;
  }
};
QUANTMILL_ALL_BACKENDS(RefineTest);

// G = [[1, 0.9], [0.9, 1]], w = [0.4, 0.4], step 1, codes [0, 0]: D = [-0.4, -0.4], gradient of the
// first (-0.4 - 0.36) = -0.76, so its best value is 0.76, code 1; then D = [0.6, -0.4], gradient of
// the second 0.14, best -0.14, code 0. Error from 0.608 to 0.088.
TEST_P(RefineTest, TwoByHand) {
  Problem p;
  p.weight = HostTensor(DType::kF32, 1, 2);
  Fill(p.weight, 0.4);
  p.gram = HostTensor(DType::kF32, 2, 2);
  Fill(p.gram, 0.9);
  p.diagonal = HostTensor(DType::kF32, 1, 2);
  Fill(p.diagonal, 1);
  p.scales = HostTensor(DType::kF32, 1, 1);
  Fill(p.scales, 1);
  p.codes = HostTensor(DType::kI8, 1, 2);
  p.codes.Row<int8_t>(0)[0] = p.codes.Row<int8_t>(0)[1] = 0;
  p.order = {0, 1};
  const QuantScheme scheme{.group_size = 2, .scale_dtype = DType::kF32};
  const Tensor got = Refined(tested(), p, scheme, 1);
  EXPECT_EQ(got.Row<int8_t>(0)[0], 1);
  EXPECT_EQ(got.Row<int8_t>(0)[1], 0);
  Fill(p.diagonal, 0);  // dead inputs are left alone
  EXPECT_EQ(Refined(tested(), p, scheme, 1).Row<int8_t>(0)[0], 0);
}

TEST_P(RefineTest, LowersTheErrorAsTheReferenceDoes) {
  for (const QuantScheme& scheme : Schemes()) {
    // Blocks of 128 columns, tiles of 8 or 4, strips of 32, 16 or 8 rows.
    for (const int64_t in : {1, 7, 64, 131, 264}) {
      if (scheme.bits == 8 && in > 131) continue;
      const int64_t out = in == 64 ? 70 : 3;
      const Problem p = Make(scheme, out, in);
      const Tensor got = Refined(tested(), p, scheme, 2);
      const Tensor want = Refined(reference_run(), p, scheme, 2);
      double got_sum = 0, want_sum = 0, before_sum = 0;
      for (int64_t r = 0; r < out; ++r) {
        const double before = RowError(p, scheme, p.codes, r);
        const double after = RowError(p, scheme, got, r);
        ASSERT_LE(after, before * (1 + 1e-4)) << Describe(scheme) << " in " << in;
        got_sum += after;
        before_sum += before;
        want_sum += RowError(p, scheme, want, r);
      }
      // One step decided the other way, at a tie to F32, may lead elsewhere: as good on the whole.
      EXPECT_NEAR(got_sum, want_sum, 0.03 * before_sum) << Describe(scheme) << " in " << in;
    }
  }
}

// Of more columns than backends take a gradient of at a time.
TEST_P(RefineTest, WideRows) {
  const QuantScheme scheme{.bits = 3, .symmetric = false, .group_size = 106};
  const Problem p = Make(scheme, 3, 530);
  const Tensor got = Refined(tested(), p, scheme, 2);
  const Tensor want = Refined(reference_run(), p, scheme, 2);
  for (int64_t r = 0; r < 3; ++r) {
    const double before = RowError(p, scheme, p.codes, r);
    EXPECT_NEAR(RowError(p, scheme, got, r), RowError(p, scheme, want, r), 0.03 * before) << r;
  }
}

// Backends refine rows in chunks: those at the end of one, and of the next, fare as by themselves.
TEST_P(RefineTest, ManyRows) {
  const QuantScheme scheme{.group_size = 4};
  const int64_t out = 8197;
  const Problem all = Make(scheme, out, 6);
  const Tensor got = Refined(tested(), all, scheme, 2);
  for (const int64_t row : {int64_t{0}, int64_t{8191}, int64_t{8192}, out - 1}) {
    Problem one = Make(scheme, 1, 6);
    std::copy_n(all.weight.Row<float>(row), 6, one.weight.Row<float>(0));
    std::copy_n(all.scales.Row<float>(row), all.scales.cols(), one.scales.Row<float>(0));
    std::copy_n(all.codes.Row<int8_t>(row), 6, one.codes.Row<int8_t>(0));
    for (int64_t i = 0; i < 6; ++i) {
      std::copy_n(all.gram.Row<float>(i), 6, one.gram.Row<float>(i));
      one.diagonal.Row<float>(0)[i] = all.diagonal.Row<float>(0)[i];
    }
    const Tensor alone = Refined(tested(), one, scheme, 2);
    const double want = RowError(one, scheme, alone, 0);
    EXPECT_NEAR(RowError(all, scheme, got, row), want, 1e-3 * want) << row;
  }
}

TEST_P(RefineTest, ThreadsDoNotChangeCodes) {
  const QuantScheme scheme{.group_size = 64};
  const Problem p = Make(scheme, 150, 192);
  const Tensor want = Refined(tested(), p, scheme, 2);
  EXPECT_TRUE(SameBits(Refined(*WithThreads(1), p, scheme, 2), want));
  EXPECT_TRUE(SameBits(Refined(*WithThreads(3), p, scheme, 2), want));
}

// ---- x (H + damp)^-1 ----

TEST_P(SearchTest, SolveGramMultipliesByTheInverse) {
  for (const int64_t in : {1, 5, 64, 300}) {
    const Tensor h = Definite(random_, in);
    const Tensor diagonal = HostTensor(DType::kF32, 1, in);
    std::vector<int32_t> order(static_cast<size_t>(in));
    std::iota(order.begin(), order.end(), 0);
    std::rotate(order.begin(), order.begin() + in / 3, order.end());
    for (int64_t k = 0; k < in; ++k) {
      const int64_t column = order[static_cast<size_t>(k)];
      diagonal.Row<float>(0)[k] = h.Row<float>(column)[column];
    }
    const Tensor gram = OnDevice(h);
    backend().PermuteGram(exec(), order, gram);
    ASSERT_TRUE(backend().FactorGram(exec(), OnDevice(diagonal), 1.0f, Precision::kF64, gram).ok);
    const Tensor x = NormalMatrix(random_, DType::kF32, 6, in);
    const Tensor device = OnDevice(x);
    backend().SolveGram(exec(), gram, order, device);
    const Tensor solved = OnHost(device);
    // Back again: solved (H + I) = x.
    double largest = 0;
    for (int64_t r = 0; r < 6; ++r) {
      for (int64_t j = 0; j < in; ++j) {
        double sum = At(solved, r, j);
        double magnitude = std::abs(sum);
        for (int64_t i = 0; i < in; ++i) {
          sum += At(solved, r, i) * At(h, i, j);
          magnitude += std::abs(At(solved, r, i) * At(h, i, j));
        }
        largest = std::max(largest, std::abs(sum - At(x, r, j)) / magnitude);
      }
    }
    // Three sums of up to `in` terms in F32, of a matrix whose condition is below 100.
    EXPECT_LT(largest, 100 * 3 * static_cast<double>(in) * 0x1p-24) << in;
  }
}

}  // namespace
}  // namespace quantmill::test
