#include "tools/flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Optimal string alignment: Levenshtein's distance with swaps of neighbours.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = a[i - 1] == b[j - 1] ? 0 : 1;
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + change});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

// The whole of `text` as a T.
template <typename T>
bool Parse(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

}  // namespace

std::string NearestName(std::string_view word, std::span<const std::string> names) {
  size_t best = (std::max<size_t>(word.size(), 3)) / 3 + 1;  // the first distance too large
  std::string nearest;
  for (const std::string& name : names) {
    const size_t distance = Distance(word, name);
    if (distance < best) {
      best = distance;
      nearest = name;
    }
  }
  return nearest;
}

std::string Suggestion(std::string_view word, std::span<const std::string> names) {
  const std::string nearest = NearestName(word, names);
  return nearest.empty() ? "" : "; did you mean '" + nearest + "'?";
}

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

int64_t ParseByteSize(const std::string& text, const std::string& flag) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  std::string unit(error == std::errc() ? rest : end, end);
  std::erase(unit, ' ');
  static const std::pair<const char*, double> kUnits[] = {
      {"", 1},         {"B", 1},        {"kB", 1e3},     {"KB", 1e3},     {"K", 1e3},
      {"M", 1e6},      {"MB", 1e6},     {"G", 1e9},      {"GB", 1e9},     {"T", 1e12},
      {"TB", 1e12},    {"KiB", 0x1p10}, {"Ki", 0x1p10},  {"MiB", 0x1p20}, {"Mi", 0x1p20},
      {"GiB", 0x1p30}, {"Gi", 0x1p30},  {"TiB", 0x1p40}, {"Ti", 0x1p40}};
  for (const auto& [name, factor] : kUnits) {
    const double bytes = number * factor;
    if (error == std::errc() && unit == name && bytes >= 1 && bytes < 0x1p62) {
      return static_cast<int64_t>(bytes);
    }
  }
  throw Error(ErrorCode::kUsage, flag,
              "'" + text + "' is not a size such as 2GiB, 500MB or 1048576");
}

}  // namespace quantmill
