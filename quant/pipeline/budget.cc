#include "quant/pipeline/budget.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <utility>

#include "kernels/core/error.h"
#include "quant/pipeline/knapsack.h"

namespace quantmill {
namespace {

struct Form {
  Budget::Kind kind;
  const char* before;
  const char* after;
  double unit;  // of the number in the text
};

constexpr Form kForms[] = {{Budget::Kind::kBits, "", "bits", 1},
                           {Budget::Kind::kKl, "kl<=", "", 1},
                           {Budget::Kind::kPerplexity, "perplexity<=+", "%", 0.01}};

// With the last candidate of every group, or the first.
int64_t MostBits(const Sensitivity& sensitivity) {
  int64_t bits = sensitivity.fixed_bits;
  for (const LayerGroup& group : sensitivity.groups) bits += group.bits.back();
  return bits;
}

int64_t LeastBits(const Sensitivity& sensitivity) {
  int64_t bits = sensitivity.fixed_bits;
  for (const LayerGroup& group : sensitivity.groups) bits += group.bits.front();
  return bits;
}

double Average(const Sensitivity& sensitivity, int64_t bits) {
  return static_cast<double>(bits) / static_cast<double>(sensitivity.total_weights());
}

// What `average_bits` come to.
int64_t Capacity(const Sensitivity& sensitivity, double average_bits) {
  const auto weights = static_cast<double>(sensitivity.total_weights());
  return static_cast<int64_t>(std::floor(average_bits * weights + 0.5));
}

std::string Escaped(const std::string& name) {
  std::string pattern;
  for (const char c : name) pattern += c == '.' ? std::string("\\.") : std::string(1, c);
  return pattern + "$";
}

}  // namespace

Budget ParseBudget(const std::string& text, const std::string& where) {
  for (const Form& form : kForms) {
    const std::string before = form.before;
    const std::string after = form.after;
    if (text.size() <= before.size() + after.size() || !text.starts_with(before) ||
        !text.ends_with(after)) {
      continue;
    }
    const char* const begin = text.data() + before.size();
    const char* const end = text.data() + text.size() - after.size();
    double value = 0;
    const auto [rest, error] = std::from_chars(begin, end, value);
    if (error == std::errc() && rest == end && value > 0 && value < 1e6) {
      return {form.kind, value * form.unit};
    }
  }
  throw Error(ErrorCode::kUsage, where,
              "'" + text + "' is none of: 4.5bits, \"kl<=0.05\", \"perplexity<=+1%\"");
}

std::string BudgetText(const Budget& budget) {
  for (const Form& form : kForms) {
    if (form.kind != budget.kind) continue;
    return fmt::format("{}{:.6g}{}", form.before, budget.limit / form.unit, form.after);
  }
  return "?";
}

void CheckBits(const Sensitivity& sensitivity, double average_bits) {
  const int64_t least = LeastBits(sensitivity);
  if (least <= Capacity(sensitivity, average_bits)) return;
  throw Error(ErrorCode::kUsage, "--budget",
              fmt::format("{:.4g} bits a weight cannot be reached; {:.4g} is the least, scales "
                          "counted",
                          average_bits, std::ceil(Average(sensitivity, least) * 1000) / 1000));
}

BitAllocation AllocateBits(const Sensitivity& sensitivity, double average_bits) {
  CheckBits(sensitivity, average_bits);
  std::vector<std::vector<KnapsackOption>> groups;
  groups.reserve(sensitivity.groups.size());
  for (const LayerGroup& group : sensitivity.groups) {
    std::vector<KnapsackOption>& options = groups.emplace_back();
    for (size_t i = 0; i < group.bits.size(); ++i) {
      options.push_back({group.bits[i], sensitivity.Cost(group, i)});
    }
  }
  auto choice = SolveKnapsack(groups, Capacity(sensitivity, average_bits) - sensitivity.fixed_bits);
  Check(choice.has_value(), "CheckBits: the least fits");
  return {std::move(choice->options), Average(sensitivity, choice->size + sensitivity.fixed_bits),
          choice->cost};
}

double BitsForDivergence(const Sensitivity& sensitivity, double kl) {
  double low = Average(sensitivity, LeastBits(sensitivity));
  double high = Average(sensitivity, MostBits(sensitivity));
  if (AllocateBits(sensitivity, low).predicted_kl <= kl) return low;
  while (high - low > 0.001) {
    const double middle = (low + high) / 2;
    (AllocateBits(sensitivity, middle).predicted_kl <= kl ? high : low) = middle;
  }
  return high;
}

BitAllocation PredictAllocation(const Sensitivity& sensitivity, const Budget& budget) {
  switch (budget.kind) {
    case Budget::Kind::kBits:
      return AllocateBits(sensitivity, budget.limit);
    case Budget::Kind::kKl:
      return AllocateBits(sensitivity, BitsForDivergence(sensitivity, budget.limit));
    case Budget::Kind::kPerplexity:
      break;
  }
  return AllocateBits(sensitivity, BitsForDivergence(sensitivity, std::log1p(budget.limit)));
}

Recipe Allocated(const Recipe& recipe, const Sensitivity& sensitivity,
                 const BitAllocation& allocation) {
  Recipe mixed = recipe;
  if (recipe.budget) {
    mixed.chosen_for = BudgetOutcome{BudgetText(*recipe.budget), recipe.budget->limit, std::nullopt,
                                     allocation.average_bits};
  }
  mixed.budget.reset();
  for (size_t g = 0; g < sensitivity.groups.size(); ++g) {
    const QuantScheme& scheme = sensitivity.candidates[allocation.candidates[g]];
    if (scheme == recipe.scheme) continue;
    const std::string& name = sensitivity.groups[g].name;
    mixed.rules.push_back({Escaped(name), scheme, "--budget: " + name});
  }
  return mixed;
}

}  // namespace quantmill
