// AddCross, SearchGrid, SolveGram and RefineCodes in plain double-precision loops.
#include <cmath>
#include <vector>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/reference_codes.h"

namespace quantmill::reference {
namespace {

float Widened(ConstMatrix m, int64_t r, int64_t c) {
  return m.dtype == DType::kBF16 ? ToFloat(m.Row<BF16>(r)[c]) : m.Row<float>(r)[c];
}

// One group of one row: its weights, and the part of `blocks` that weighs their errors.
class GroupError {
 public:
  GroupError(ConstMatrix weight, ConstMatrix blocks, const QuantScheme& scheme, int64_t row,
             int64_t begin, int64_t end)
      : weight_(weight.Row<float>(row)),
        blocks_(blocks),
        scheme_(scheme),
        begin_(begin),
        end_(end) {}

  double Of(float scale, int zero) const {
    double sum = 0;
    for (int64_t b = begin_; b < end_; b += blocks_.cols) {
      const int64_t block_end = std::min(end_, b + blocks_.cols);
      for (int64_t i = b; i < block_end; ++i) {
        for (int64_t j = b; j < block_end; ++j) {
          sum += Error(i, scale, zero) * static_cast<double>(blocks_.Row<float>(i)[j - b]) *
                 Error(j, scale, zero);
        }
      }
    }
    return sum;
  }

 private:
  double Error(int64_t i, float scale, int zero) const {
    const int8_t code = CodeOf(weight_[i], scale, zero, scheme_);
    return static_cast<double>(ValueOf(code, scale, zero, scheme_)) -
           static_cast<double>(weight_[i]);
  }

  const float* weight_;
  ConstMatrix blocks_;
  const QuantScheme& scheme_;
  int64_t begin_;
  int64_t end_;
};

struct Candidate {
  float scale = 1;
  int zero = 0;
  float factor = 1;
  float sign = 1;
};

// The search of one group, as ops.h tells it.
Candidate Search(const GroupError& error, const QuantScheme& scheme, const GridSearch& search,
                 const Candidate& start) {
  Candidate best = start;
  double least = error.Of(start.scale, start.zero);
  const auto attempt = [&](float factor, float sign, int zero) {
    const float stored = RoundTo(scheme.scale_dtype, start.scale * factor * search.global_scale) /
                         search.global_scale;
    if (!(factor > 0 && stored > 0 && stored < 3e38f)) return;
    const double e = error.Of(stored * sign, zero);
    if (!(e < least)) return;
    least = e;
    best = {stored * sign, zero, factor, sign};
  };
  const auto neighbours = [&] {
    if (scheme.symmetric) return;
    for (const int step : {-1, 1}) {
      attempt(best.factor, best.sign,
              std::clamp(best.zero + step, scheme.min_code(), scheme.max_code()));
    }
  };
  for (const float factor : search.coarse) {
    attempt(factor, 1, best.zero);
    if (search.mirror) attempt(factor, -1, best.zero);
  }
  neighbours();
  for (const float offset : search.fine) attempt(best.factor + offset, best.sign, best.zero);
  neighbours();
  return best;
}

}  // namespace

void ReferenceBackend::AddCross(Exec&, ConstMatrix x, ConstMatrix y, Matrix cross) {
  CheckAddCross(x, y, cross);
  for (int64_t i = 0; i < x.cols; ++i) {
    for (int64_t j = 0; j < x.cols; ++j) {
      double sum = 0;
      for (int64_t t = 0; t < x.rows; ++t) {
        sum += static_cast<double>(Widened(x, t, i)) *
               (static_cast<double>(Widened(y, t, j)) - static_cast<double>(Widened(x, t, j)));
      }
      cross.Row<float>(i)[j] = static_cast<float>(cross.Row<float>(i)[j] + sum);
    }
  }
}

void ReferenceBackend::SearchGrid(Exec&, ConstMatrix weight, ConstMatrix blocks,
                                  const QuantScheme& scheme, const GridSearch& search,
                                  Matrix scales, Matrix zero_points) {
  CheckSearchGrid(weight, blocks, scheme, search, scales, zero_points);
  const int64_t size = scheme.GroupSizeFor(weight.cols);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t g = 0; g < scales.cols; ++g) {
      const GroupError error(weight, blocks, scheme, r, g * size,
                             std::min(weight.cols, (g + 1) * size));
      Candidate start;
      start.scale = scales.Row<float>(r)[g];
      start.zero = scheme.symmetric ? 0 : zero_points.Row<int8_t>(r)[g];
      const Candidate best = Search(error, scheme, search, start);
      scales.Row<float>(r)[g] = best.scale;
      if (!scheme.symmetric) zero_points.Row<int8_t>(r)[g] = static_cast<int8_t>(best.zero);
    }
  }
}

void ReferenceBackend::SolveGram(Exec&, ConstMatrix factor, std::span<const int32_t> order,
                                 Matrix x) {
  CheckSolveGram(factor, order, x);
  const auto n = static_cast<size_t>(factor.rows);
  for (int64_t row = 0; row < x.rows; ++row) {
    std::vector<double> y(n), z(n);
    for (size_t k = 0; k < n; ++k) {
      for (size_t j = k; j < n; ++j) {
        y[k] += static_cast<double>(x.Row<float>(row)[order[j]]) *
                static_cast<double>(factor.Row<float>(static_cast<int64_t>(k))[j]);
      }
    }
    for (size_t j = 0; j < n; ++j) {
      for (size_t k = 0; k <= j; ++k) {
        z[j] += y[k] * static_cast<double>(factor.Row<float>(static_cast<int64_t>(k))[j]);
      }
    }
    for (size_t j = 0; j < n; ++j) x.Row<float>(row)[order[j]] = static_cast<float>(z[j]);
  }
}

void ReferenceBackend::RefineCodes(Exec&, const GptqProblem& problem, ConstMatrix diagonal,
                                   int sweeps, Matrix codes) {
  CheckRefineCodes(problem, diagonal, codes);
  const QuantScheme& scheme = problem.scheme;
  const int64_t in = problem.weight.cols;
  const int64_t size = scheme.GroupSizeFor(in);
  const auto gram = [&](int64_t i, int64_t j) {
    if (i == j) return static_cast<double>(diagonal.Row<float>(0)[i]);
    return static_cast<double>(problem.factor.Row<float>(std::max(i, j))[std::min(i, j)]);
  };
  for (int64_t row = 0; row < problem.weight.rows; ++row) {
    const auto scale_of = [&](int64_t k) {
      return problem.scales.Row<float>(row)[problem.order[static_cast<size_t>(k)] / size];
    };
    const auto zero_of = [&](int64_t k) {
      const int64_t group = problem.order[static_cast<size_t>(k)] / size;
      return scheme.symmetric ? 0 : problem.zero_points.Row<int8_t>(row)[group];
    };
    const auto code_of = [&](int64_t k) -> int8_t& {
      return codes.Row<int8_t>(row)[problem.order[static_cast<size_t>(k)]];
    };
    const auto value = [&](int64_t k) {
      return static_cast<double>(ValueOf(code_of(k), scale_of(k), zero_of(k), scheme));
    };
    for (int64_t k = 0; k < in * sweeps; ++k) {
      const int64_t at = k % in;
      if (!(gram(at, at) > 0)) continue;
      double gradient = 0;
      for (int64_t j = 0; j < in; ++j) {
        const int32_t column = problem.order[static_cast<size_t>(j)];
        gradient +=
            gram(at, j) * (value(j) - static_cast<double>(problem.weight.Row<float>(row)[column]));
      }
      const double best = value(at) - gradient / gram(at, at);
      code_of(at) = CodeOf(static_cast<float>(best), scale_of(at), zero_of(at), scheme);
    }
  }
}

}  // namespace quantmill::reference
