// Grids, factorization and GPTQ in plain double-precision loops. Quotients of weights and scales
// are F32, as the codes of every backend depend on them (ops.h).
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/op_checks.h"
#include "kernels/reference/reference_backend.h"
#include "kernels/reference/reference_codes.h"

namespace quantmill::reference {
namespace {

using Square = std::vector<std::vector<double>>;

int ZeroPoint(ConstMatrix zero_points, const QuantScheme& scheme, int64_t row, int64_t group) {
  return scheme.symmetric ? 0 : zero_points.Row<int8_t>(row)[group];
}

// The strict lower triangle of gram mirrored, with `diagonal`.
Square LowerMirrored(ConstMatrix gram, ConstMatrix diagonal) {
  const auto n = static_cast<size_t>(gram.rows);
  Square h(n, std::vector<double>(n));
  for (size_t i = 0; i < n; ++i) {
    h[i][i] = diagonal.Row<float>(0)[i];
    for (size_t j = 0; j < i; ++j) {
      h[i][j] = h[j][i] = gram.Row<float>(static_cast<int64_t>(i))[j];
    }
  }
  return h;
}

// h = U U^T, U upper, in place of h. Returns the failed column, or -1.
int64_t ReverseCholesky(Square& h) {
  for (size_t j = h.size(); j-- > 0;) {
    double pivot = h[j][j];
    for (size_t k = j + 1; k < h.size(); ++k) pivot -= h[j][k] * h[j][k];
    if (!(pivot > 0) || !std::isfinite(pivot)) return static_cast<int64_t>(j);
    h[j][j] = std::sqrt(pivot);
    for (size_t i = 0; i < j; ++i) {
      double sum = h[i][j];
      for (size_t k = j + 1; k < h.size(); ++k) sum -= h[i][k] * h[j][k];
      h[i][j] = sum / h[j][j];
    }
  }
  return -1;
}

// u^-1 of an upper triangle.
Square InverseOfUpper(const Square& u) {
  const size_t n = u.size();
  Square r(n, std::vector<double>(n));
  for (size_t j = 0; j < n; ++j) {
    r[j][j] = 1 / u[j][j];
    for (size_t i = j; i-- > 0;) {
      double sum = 0;
      for (size_t k = i + 1; k <= j; ++k) sum += u[i][k] * r[k][j];
      r[i][j] = -sum / u[i][i];
    }
  }
  return r;
}

}  // namespace

void ReferenceBackend::MinMaxGrid(Exec&, ConstMatrix weight, const QuantScheme& scheme,
                                  Matrix scales, Matrix zero_points) {
  CheckMinMaxGrid(weight, scheme, scales, zero_points);
  const int64_t size = scheme.GroupSizeFor(weight.cols);
  const auto lowest = static_cast<float>(scheme.min_code());
  const auto highest = static_cast<float>(scheme.max_code());
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t g = 0; g < scheme.GroupsFor(weight.cols); ++g) {
      float lo = 0;
      float hi = 0;
      for (int64_t i = g * size; i < std::min(weight.cols, (g + 1) * size); ++i) {
        lo = std::min(lo, weight.Row<float>(r)[i]);
        hi = std::max(hi, weight.Row<float>(r)[i]);
      }
      float scale = std::max(-lo, hi) / scheme.half_range();
      if (!scheme.symmetric) {
        scale = (hi - lo) / (highest - lowest);
        const float zero = lo < 0 ? std::nearbyint(lowest - lo / scale) : lowest;
        zero_points.Row<int8_t>(r)[g] = static_cast<int8_t>(std::clamp(zero, lowest, highest));
      }
      float stored = RoundTo(scheme.scale_dtype, scale);
      if (stored == 0 && lo == 0 && hi == 0) stored = scheme.scale_of_zeros();
      if (stored == 0) stored = scheme.scale_dtype == DType::kF16 ? 0x1p-14f : 0x1p-126f;
      scales.Row<float>(r)[g] = stored;
    }
  }
}

void ReferenceBackend::RoundToGrid(Exec&, ConstMatrix weight, const QuantScheme& scheme,
                                   ConstMatrix scales, ConstMatrix zero_points, Matrix codes) {
  CheckRoundToGrid(weight, scheme, scales, zero_points, codes);
  const int64_t size = scheme.GroupSizeFor(weight.cols);
  for (int64_t r = 0; r < weight.rows; ++r) {
    for (int64_t i = 0; i < weight.cols; ++i) {
      const float w = weight.Row<float>(r)[i];
      Check(!std::isnan(w), "RoundToGrid: a weight is NaN");
      codes.Row<int8_t>(r)[i] = CodeOf(w, scales.Row<float>(r)[i / size],
                                       ZeroPoint(zero_points, scheme, r, i / size), scheme);
    }
  }
}

void ReferenceBackend::PermuteGram(Exec&, std::span<const int32_t> order, Matrix gram) {
  CheckPermuteGram(order, gram);
  const auto n = static_cast<size_t>(gram.rows);
  Square old(n, std::vector<double>(n));
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = i; j < n; ++j) {
      old[i][j] = old[j][i] = gram.Row<float>(static_cast<int64_t>(i))[j];
    }
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      const double value = old[static_cast<size_t>(order[i])][static_cast<size_t>(order[j])];
      gram.Row<float>(static_cast<int64_t>(i))[j] = static_cast<float>(value);
    }
  }
}

FactorResult ReferenceBackend::FactorGram(Exec&, ConstMatrix diagonal, float damp,
                                          Precision /*precision*/, Matrix gram) {
  CheckFactorGram(diagonal, gram);
  Square h = LowerMirrored(gram, diagonal);
  for (size_t i = 0; i < h.size(); ++i) h[i][i] += damp;
  const int64_t failed = ReverseCholesky(h);
  if (failed >= 0) return {false, failed};
  const Square r = InverseOfUpper(h);
  for (size_t i = 0; i < r.size(); ++i) {
    for (size_t j = i; j < r.size(); ++j) {
      gram.Row<float>(static_cast<int64_t>(i))[j] = static_cast<float>(r[i][j]);
    }
  }
  return {true, -1};
}

void ReferenceBackend::GptqSolve(Exec&, const GptqProblem& problem, Matrix codes, Matrix loss) {
  CheckGptqSolve(problem, codes, loss);
  const QuantScheme& scheme = problem.scheme;
  const int64_t in = problem.weight.cols;
  const int64_t size = scheme.GroupSizeFor(in);
  std::vector<double> w(static_cast<size_t>(in));
  for (int64_t row = 0; row < problem.weight.rows; ++row) {
    for (size_t k = 0; k < w.size(); ++k) w[k] = problem.weight.Row<float>(row)[problem.order[k]];
    double sum = 0;
    for (size_t k = 0; k < w.size(); ++k) {
      const int32_t column = problem.order[k];
      const float scale = problem.scales.Row<float>(row)[column / size];
      const int zero = ZeroPoint(problem.zero_points, scheme, row, column / size);
      const int8_t code = CodeOf(static_cast<float>(w[k]), scale, zero, scheme);
      codes.Row<int8_t>(row)[column] = code;
      const auto* r = problem.factor.Row<float>(static_cast<int64_t>(k));
      const double q = ValueOf(code, scale, zero, scheme);
      const double e = (w[k] - q) / static_cast<double>(r[k]);
      sum += e * e;
      for (size_t j = k + 1; j < w.size(); ++j) w[j] -= e * static_cast<double>(r[j]);
    }
    loss.Row<float>(0)[row] = static_cast<float>(sum);
  }
}

void ReferenceBackend::QuadraticForm(Exec&, ConstMatrix delta, ConstMatrix gram,
                                     ConstMatrix diagonal, Matrix result) {
  CheckQuadraticForm(delta, gram, diagonal, result);
  const Square h = LowerMirrored(gram, diagonal);
  for (int64_t row = 0; row < delta.rows; ++row) {
    const auto* d = delta.Row<float>(row);
    double sum = 0;
    for (size_t i = 0; i < h.size(); ++i) {
      for (size_t j = 0; j < h.size(); ++j) {
        sum += static_cast<double>(d[i]) * h[i][j] * static_cast<double>(d[j]);
      }
    }
    result.Row<float>(0)[row] = static_cast<float>(sum);
  }
}

}  // namespace quantmill::reference
