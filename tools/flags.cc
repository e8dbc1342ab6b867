#include "tools/flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "quant/report/spelling.h"

namespace quantmill {
namespace {

// The whole of `text` as a T.
template <typename T>
bool Parse(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

CLI::Option* TakesOneOf(CLI::Option* option, std::vector<std::string> names) {
  option->type_name(fmt::format("{}", fmt::join(names, "|")));
  return option->check(CLI::Validator(
      [names = std::move(names)](std::string& word) -> std::string {
        if (std::find(names.begin(), names.end(), word) != names.end()) return {};
        return fmt::format("'{}' is not one of {}{}", word, fmt::join(names, ", "),
                           Suggestion(word, names));
      },
      ""));
}

CLI::Option* TakesInteger(CLI::Option* option, int64_t low, int64_t high) {
  option->type_name("N");
  return option->check(CLI::Validator(
      [=](std::string& text) -> std::string {
        int64_t value = 0;
        if (Parse(text, value) && value >= low && value <= high) return {};
        return fmt::format("'{}' is not a whole number from {} to {}", text, low, high);
      },
      ""));
}

CLI::Option* TakesNumber(CLI::Option* option, double low, double high) {
  option->type_name("X");
  return option->check(CLI::Validator(
      [=](std::string& text) -> std::string {
        double value = 0;
        if (Parse(text, value) && value >= low && value <= high) return {};
        return fmt::format("'{}' is not a number from {} to {}", text, low, high);
      },
      ""));
}

}  // namespace quantmill
