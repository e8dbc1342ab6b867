#include "quant/pipeline/rules.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/core/error.h"
#include "quant/report/spelling.h"

namespace quantmill {
namespace {

Regex Compile(const Rule& rule) {
  try {
    Regex::FromPcre(rule.pattern, rule.where);  // by itself: "a)(b" must not pass in the brackets
    return Regex::FromPcre("\\A(?:" + rule.pattern + ")", rule.where);
  } catch (const Error& error) {
    throw Error(ErrorCode::kUsage, rule.where, error.message());
  }
}

// What is left of a pattern that was meant as a name: "model\.layers\.0\.mlp\.up.*" ->
// "model.layers.0.mlp.up".
std::string PlainText(const std::string& pattern) {
  std::string text;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\' && i + 1 < pattern.size()) {
      text += pattern[++i];
    } else if (c == '.' && i + 1 < pattern.size() &&
               (pattern[i + 1] == '*' || pattern[i + 1] == '+')) {
      ++i;
    } else if (std::string_view("^$*+?()[]{}|").find(c) == std::string_view::npos) {
      text += c;
    }
  }
  return text.substr(std::min(text.find_first_not_of('.'), text.size()));
}

// The module whose name, or the end of it ("q_proj", "mlp.down_proj"), is nearest to the pattern.
std::string NearestModule(const std::string& pattern, std::span<const std::string> modules) {
  const std::string text = PlainText(pattern);
  const auto depth = std::count(text.begin(), text.end(), '.');
  std::vector<std::string> tails;
  for (const std::string& module : modules) {
    size_t begin = module.size();
    for (int64_t i = 0; i <= depth && begin != std::string::npos && begin > 0; ++i) {
      begin = module.rfind('.', begin - 1);
    }
    tails.push_back(begin == std::string::npos || begin == 0 ? module : module.substr(begin + 1));
  }
  const std::string nearest = NearestName(text, tails);
  const auto at = std::find(tails.begin(), tails.end(), nearest);
  return at == tails.end() ? "" : modules[static_cast<size_t>(at - tails.begin())];
}

}  // namespace

RuleMatcher::RuleMatcher(std::span<const Rule> rules)
    : rules_(rules), matched_(rules.size(), false) {
  for (const Rule& rule : rules) patterns_.push_back(Compile(rule));
}

const Rule* RuleMatcher::Match(const std::string& module) {
  const Rule* last = nullptr;
  for (size_t i = 0; i < rules_.size(); ++i) {
    Regex::Matcher matcher(patterns_[i]);
    matcher.SetText(module);
    if (!matcher.Search(0)) continue;
    matched_[i] = true;
    last = &rules_[i];
  }
  return last;
}

void RuleMatcher::RequireAllMatched(std::span<const std::string> modules) const {
  for (size_t i = 0; i < rules_.size(); ++i) {
    if (matched_[i]) continue;
    const std::string nearest = NearestModule(rules_[i].pattern, modules);
    std::string hint = nearest;
    if (hint.empty() && !modules.empty()) hint = modules.front();
    throw Error(ErrorCode::kUsage, rules_[i].where,
                fmt::format("'{}' matches no layer; {} '{}' (patterns match from the start of the "
                            "name, so '.*q_proj' finds every q_proj)",
                            rules_[i].pattern,
                            nearest.empty() ? "the first one is called" : "the nearest is", hint));
  }
}

}  // namespace quantmill
