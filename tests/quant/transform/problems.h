// Fold problems of tests: random weights, statistics of given channel magnitudes.
#ifndef QUANTMILL_TESTS_QUANT_TRANSFORM_PROBLEMS_H_
#define QUANTMILL_TESTS_QUANT_TRANSFORM_PROBLEMS_H_

#include <cmath>
#include <vector>

#include "quant/transform/fold_problem.h"
#include "tests/support/random.h"

namespace quantmill::test {

inline QuantScheme IntScheme(int bits, bool symmetric, int64_t group_size) {
  QuantScheme scheme;
  scheme.bits = bits;
  scheme.symmetric = symmetric;
  scheme.group_size = group_size;
  scheme.scale_dtype = DType::kF32;
  return scheme;
}

inline QuantScheme W8A8() {
  QuantScheme scheme = IntScheme(8, true, QuantScheme::kPerChannel);
  scheme.input.type = InputScheme::Type::kInt8;
  return scheme;
}

// Inputs are independent normal numbers, that of channel i of deviation channel[i].
struct RandomProblem {
  FoldProblem problem;
  Tensor inputs;  // [tokens, in]
};
inline RandomProblem MakeProblem(Random& random, const QuantScheme& scheme, int64_t rows,
                                 const std::vector<double>& channel, int64_t tokens) {
  const auto in = std::ssize(channel);
  RandomProblem made;
  FoldProblem& problem = made.problem;
  problem.scheme = scheme;
  problem.weight = NormalMatrix(random, DType::kF32, rows, in, 0.05);
  problem.scales = in;
  made.inputs = NormalMatrix(random, DType::kF32, tokens, in);
  for (int64_t i = 0; i < in; ++i) {
    problem.scale_of.push_back(static_cast<int32_t>(i));
    double squares = 0;
    float absmax = 0;
    for (int64_t t = 0; t < tokens; ++t) {
      float& x = made.inputs.Row<float>(t)[i];
      x *= static_cast<float>(channel[static_cast<size_t>(i)]);
      squares += static_cast<double>(x) * static_cast<double>(x);
      absmax = std::max(absmax, std::abs(x));
    }
    problem.mean_square.push_back(static_cast<float>(squares / static_cast<double>(tokens)));
    problem.absmax.push_back(absmax);
  }
  problem.importance = problem.mean_square;
  if (scheme.input.type != InputScheme::Type::kNone) {
    problem.sample = Converted(made.inputs, DType::kF32);
  }
  return made;
}

// Channels of deviation 1, but `count` of them `ratio` times that.
inline std::vector<double> WithOutliers(int64_t in, int64_t count, double ratio) {
  std::vector<double> channel(static_cast<size_t>(in), 1.0);
  for (int64_t i = 0; i < count; ++i) channel[static_cast<size_t>(i * in / count)] = ratio;
  return channel;
}

inline std::vector<float> Ones(const FoldProblem& problem) {
  return std::vector<float>(static_cast<size_t>(problem.scales), 1.0f);
}

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_QUANT_TRANSFORM_PROBLEMS_H_
