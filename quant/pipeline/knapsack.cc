#include "quant/pipeline/knapsack.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr size_t kMaxStates = size_t{1} << 15;

// A sum over the first groups that no other one beats in both size and cost.
struct State {
  int64_t size = 0;
  double cost = 0;
  uint32_t parent = 0;  // among the states one group earlier
  uint32_t option = 0;  // of the last group
};

// The states that no other beats, by growing size and falling cost.
std::vector<State> Undominated(std::vector<State> states) {
  std::stable_sort(states.begin(), states.end(), [](const State& a, const State& b) {
    return a.size != b.size ? a.size < b.size : a.cost < b.cost;
  });
  std::vector<State> kept;
  for (const State& state : states) {
    if (kept.empty() || state.cost < kept.back().cost) kept.push_back(state);
  }
  return kept;
}

// Keeps the first of each run of neighbours: the smallest one, so that what fitted still fits.
void Thin(std::vector<State>& states) {
  if (states.size() <= kMaxStates) return;
  const size_t step = (states.size() + kMaxStates - 1) / kMaxStates;
  std::vector<State> kept;
  for (size_t i = 0; i < states.size(); i += step) kept.push_back(states[i]);
  states = std::move(kept);
}

int64_t Smallest(const std::vector<KnapsackOption>& options) {
  Check(!options.empty(), "SolveKnapsack: a group without options");
  int64_t size = options.front().size;
  for (const KnapsackOption& option : options) size = std::min(size, option.size);
  return size;
}

}  // namespace

std::optional<KnapsackChoice> SolveKnapsack(std::span<const std::vector<KnapsackOption>> groups,
                                            int64_t capacity) {
  // The least that the groups still to come take: a sum must leave that much.
  int64_t rest = 0;
  for (const auto& options : groups) rest += Smallest(options);
  std::vector<std::vector<State>> levels = {{State{}}};
  if (rest > capacity) return std::nullopt;
  for (const auto& options : groups) {
    rest -= Smallest(options);
    const std::vector<State>& before = levels.back();
    std::vector<State> states;
    for (size_t parent = 0; parent < before.size(); ++parent) {
      for (size_t option = 0; option < options.size(); ++option) {
        const int64_t size = before[parent].size + options[option].size;
        if (size > capacity - rest) continue;
        states.push_back({size, before[parent].cost + options[option].cost,
                          static_cast<uint32_t>(parent), static_cast<uint32_t>(option)});
      }
    }
    states = Undominated(std::move(states));
    Thin(states);
    levels.push_back(std::move(states));
  }
  KnapsackChoice choice;
  choice.options.resize(groups.size());
  size_t at = levels.back().size() - 1;  // the largest that fits costs least
  choice.size = levels.back()[at].size;
  choice.cost = levels.back()[at].cost;
  for (size_t group = groups.size(); group > 0; --group) {
    choice.options[group - 1] = levels[group][at].option;
    at = levels[group][at].parent;
  }
  return choice;
}

}  // namespace quantmill
