#include "quant/transform/expected_error.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr double kVariance = 1.0 / 12;  // of an error spread evenly over a step of 1
constexpr double kInputSteps = 127;     // int8 per token: absmax / 127

double Square(double x) { return x * x; }

// Adds a column to the term, under its scale.
void AddColumn(NoiseTerm& term, int32_t scale, std::vector<float> high, std::vector<float> low,
               double importance) {
  const int64_t member = term.MemberOf(scale);
  if (member < 0) {
    term.AddMember(scale, std::move(high), std::move(low), importance);
  } else {
    term.Widen(member, high, low, importance);
  }
}

std::vector<float> PositiveParts(const std::vector<float>& x, float sign) {
  std::vector<float> parts;
  parts.reserve(x.size());
  for (const float v : x) parts.push_back(std::max(v * sign, 0.0f));
  return parts;
}

std::vector<float> Magnitudes(const std::vector<float>& x) {
  std::vector<float> magnitudes;
  magnitudes.reserve(x.size());
  for (const float v : x) magnitudes.push_back(std::abs(v));
  return magnitudes;
}

std::vector<float> Column(ConstMatrix m, int64_t column) {
  std::vector<float> values;
  values.reserve(static_cast<size_t>(m.rows));
  for (int64_t r = 0; r < m.rows; ++r) values.push_back(m.Row<float>(r)[column]);
  return values;
}

std::vector<NoiseTerm> WeightTerms(const FoldProblem& problem) {
  const QuantScheme& scheme = problem.scheme;
  const int64_t size = scheme.GroupSizeFor(problem.in());
  const double steps = scheme.max_code() - scheme.min_code();
  std::vector<NoiseTerm> terms;
  for (int64_t begin = 0; begin < problem.in(); begin += size) {
    NoiseTerm& term = terms.emplace_back(kVariance / Square(steps), false, problem.weight.rows());
    for (int64_t i = begin; i < std::min(problem.in(), begin + size); ++i) {
      const auto at = static_cast<size_t>(i);
      const std::vector<float> column = Column(problem.weight, i);
      const auto importance = static_cast<double>(problem.importance[at]);
      if (scheme.symmetric) {
        AddColumn(term, problem.scale_of[at], Magnitudes(column), {}, importance);
      } else {
        AddColumn(term, problem.scale_of[at], PositiveParts(column, 1), PositiveParts(column, -1),
                  importance);
      }
    }
  }
  return terms;
}

std::vector<NoiseTerm> InputTerms(const FoldProblem& problem) {
  std::vector<NoiseTerm> terms;
  if (problem.scheme.input.type != InputScheme::Type::kInt8 || problem.sample.empty()) return terms;
  const int64_t tokens = problem.sample.rows();
  // A symmetric step is absmax / 127; the term counts both sides of zero.
  const double factor = kVariance / Square(2 * kInputSteps) / static_cast<double>(tokens);
  NoiseTerm& term = terms.emplace_back(factor, true, tokens);
  for (int64_t i = 0; i < problem.in(); ++i) {
    double squares = 0;
    for (const float w : Column(problem.weight, i)) squares += Square(static_cast<double>(w));
    AddColumn(term, problem.scale_of[static_cast<size_t>(i)], Magnitudes(Column(problem.sample, i)),
              {}, squares);
  }
  return terms;
}

}  // namespace

bool HasExpectedError(const QuantScheme& scheme) {
  const bool inputs = scheme.input.type == InputScheme::Type::kNone ||
                      scheme.input.type == InputScheme::Type::kInt8;
  return scheme.code_type == CodeType::kInt && scheme.row_block == 1 && inputs;
}

ExpectedError::ExpectedError(const FoldProblem& problem) : scales_(problem.scales) {
  Check(HasExpectedError(problem.scheme), "ExpectedError: integer schemes alone");
  weights_ = WeightTerms(problem);
  inputs_ = InputTerms(problem);
}

ExpectedErrors ExpectedError::At(const std::vector<float>& scales) const {
  Check(std::ssize(scales) == scales_, "ExpectedError: one scale for each element");
  ExpectedErrors errors;
  for (const NoiseTerm& term : weights_) errors.weights += term.ValueAt(scales);
  for (const NoiseTerm& term : inputs_) errors.inputs += term.ValueAt(scales);
  return errors;
}

}  // namespace quantmill
