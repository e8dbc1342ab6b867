// The multiple-choice knapsack: one option of each group, least cost within a size.
#ifndef QUANTMILL_QUANT_PIPELINE_KNAPSACK_H_
#define QUANTMILL_QUANT_PIPELINE_KNAPSACK_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace quantmill {

struct KnapsackOption {
  int64_t size = 0;  // at least 0
  double cost = 0;   // finite
};

struct KnapsackChoice {
  std::vector<size_t> options;  // of each group, the index of the option taken
  int64_t size = 0;
  double cost = 0;
};

// groups: each with at least one option. Nothing fits: empty. The optimum is exact: every partial
// sum that could still be part of one is kept. (Sums share their sizes where layers share their
// shapes, so there are few; past 32,768 of them the sizes of neighbours are joined, and the result
// is the best of what is left, still within `capacity`.) Ties go to the smaller size.
// Deterministic.
std::optional<KnapsackChoice> SolveKnapsack(std::span<const std::vector<KnapsackOption>> groups,
                                            int64_t capacity);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_KNAPSACK_H_
