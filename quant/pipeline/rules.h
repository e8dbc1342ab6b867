// Per-layer rules: an ordered list of patterns, of which the last that matches a layer decides.
#ifndef QUANTMILL_QUANT_PIPELINE_RULES_H_
#define QUANTMILL_QUANT_PIPELINE_RULES_H_

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/tokenizer/regex.h"
#include "kernels/core/scheme.h"

namespace quantmill {

struct Rule {
  // A regular expression (PCRE) that must match from the start of the module's name, as Python's
  // re.match does: ".*down_proj", "model\.layers\.0\.".
  std::string pattern;
  std::optional<QuantScheme> scheme;  // empty: the layer stays dense
  std::string where;                  // the flag or the recipe's line, for errors
};

// Compiled rules. Borrows them.
class RuleMatcher {
 public:
  // Throws Error(kUsage, rule.where) for a pattern that is no regular expression.
  explicit RuleMatcher(std::span<const Rule> rules);

  // The last rule that matches, or null. Notes every rule that does.
  const Rule* Match(const std::string& module);

  // Throws Error(kUsage) for the first rule that never matched, with the nearest of `modules`.
  void RequireAllMatched(std::span<const std::string> modules) const;

 private:
  std::span<const Rule> rules_;
  std::vector<Regex> patterns_;
  std::vector<bool> matched_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_RULES_H_
