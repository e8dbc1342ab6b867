#include "quant/pipeline/knapsack.h"

#include <gtest/gtest.h>

#include <limits>

#include "tests/support/random.h"

namespace quantmill::test {
namespace {

using Groups = std::vector<std::vector<KnapsackOption>>;

// The least cost over every combination that fits; infinite where none does.
double BruteForce(const Groups& groups, int64_t capacity, size_t group = 0) {
  if (capacity < 0) return std::numeric_limits<double>::infinity();
  if (group == groups.size()) return 0;
  double best = std::numeric_limits<double>::infinity();
  for (const KnapsackOption& option : groups[group]) {
    best = std::min(best, option.cost + BruteForce(groups, capacity - option.size, group + 1));
  }
  return best;
}

void ExpectConsistent(const Groups& groups, const KnapsackChoice& choice, int64_t capacity) {
  int64_t size = 0;
  double cost = 0;
  ASSERT_EQ(choice.options.size(), groups.size());
  for (size_t g = 0; g < groups.size(); ++g) {
    ASSERT_LT(choice.options[g], groups[g].size());
    size += groups[g][choice.options[g]].size;
    cost += groups[g][choice.options[g]].cost;
  }
  EXPECT_EQ(size, choice.size);
  EXPECT_EQ(cost, choice.cost);
  EXPECT_LE(size, capacity);
}

TEST(Knapsack, EqualsBruteForce) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    Groups groups(static_cast<size_t>(random.Int(1, 6)));
    for (auto& options : groups) {
      options.resize(static_cast<size_t>(random.Int(1, 5)));
      // Whole costs: sums in any order are exact.
      for (auto& option : options) {
        option = {random.Int(0, 30), static_cast<double>(random.Int(0, 50))};
      }
    }
    const int64_t capacity = random.Int(0, 120);
    const auto choice = SolveKnapsack(groups, capacity);
    const double best = BruteForce(groups, capacity);
    if (!choice) {
      EXPECT_EQ(best, std::numeric_limits<double>::infinity()) << seed;
      continue;
    }
    EXPECT_EQ(choice->cost, best) << seed;
    ExpectConsistent(groups, *choice, capacity);
  }
}

TEST(Knapsack, EdgesAreExact) {
  EXPECT_TRUE(SolveKnapsack({}, 0).has_value());
  const Groups groups = {{{4, 1}, {2, 5}}, {{3, 1}, {1, 2}}};
  EXPECT_FALSE(SolveKnapsack(groups, 2).has_value());
  EXPECT_EQ(SolveKnapsack(groups, 3)->cost, 7);
  EXPECT_EQ(SolveKnapsack(groups, 5)->cost, 3);
  EXPECT_EQ(SolveKnapsack(groups, 6)->cost, 3);
  EXPECT_EQ(SolveKnapsack(groups, 7)->cost, 2);
  EXPECT_EQ(SolveKnapsack(groups, 1000)->size, 7);
  // Of equals the smaller.
  EXPECT_EQ(SolveKnapsack(Groups{{{9, 1}, {2, 1}}}, 10)->size, 2);
}

TEST(Knapsack, AModelsWorthOfLayersOfOddSizesStaysWithinTheCapacity) {
  Random random(1);
  Groups groups(120);
  int64_t capacity = 0;
  for (auto& options : groups) {
    const int64_t unit = random.Int(1'000'000, 9'000'000);
    for (int64_t bits = 2; bits <= 8; ++bits) {
      options.push_back({unit * bits, random.Uniform() / static_cast<double>(1 << (2 * bits))});
    }
    capacity += 4 * unit;
  }
  const auto choice = SolveKnapsack(groups, capacity);
  ASSERT_TRUE(choice.has_value());
  ExpectConsistent(groups, *choice, capacity);
  EXPECT_GT(choice->size, capacity / 100 * 99) << "almost all of it is used";
}

}  // namespace
}  // namespace quantmill::test
