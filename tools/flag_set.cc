#include "tools/flag_set.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include "quant/pipeline/recipe_draft.h"
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

const Flag& Flag::Required() const {
  option_->required();
  return *this;
}

const Flag& Flag::ValueName(const std::string& name) const {
  option_->type_name(name);
  return *this;
}

const Flag& Flag::Group(const std::string& title) const {
  option_->group(title);
  return *this;
}

const Flag& Flag::Repeats() const {
  option_->expected(1)->take_all();
  return *this;
}

const Flag& Flag::OneOf(std::vector<std::string> names) const {
  option_->type_name(fmt::format("{}", fmt::join(names, "|")));
  option_->check(CLI::Validator(
      [names = std::move(names)](std::string& word) -> std::string {
        if (std::find(names.begin(), names.end(), word) != names.end()) return {};
        return fmt::format("'{}' is not one of {}{}", word, fmt::join(names, ", "),
                           Suggestion(word, names));
      },
      ""));
  return *this;
}

const Flag& Flag::IntegerIn(int64_t low, int64_t high) const {
  option_->type_name("N");
  option_->check(CLI::Validator(
      [=](std::string& text) -> std::string {
        int64_t value = 0;
        if (Parse(text, value) && value >= low && value <= high) return {};
        return fmt::format("'{}' is not a whole number from {} to {}", text, low, high);
      },
      ""));
  return *this;
}

const Flag& Flag::IntegerIn(const IntegerRange& range) const {
  return IntegerIn(range.low, range.high);
}

const Flag& Flag::NumberIn(double low, double high) const {
  option_->type_name("X");
  option_->check(CLI::Validator(
      [=](std::string& text) -> std::string {
        double value = 0;
        if (Parse(text, value) && value >= low && value <= high) return {};
        return fmt::format("'{}' is not a number from {} to {}", text, low, high);
      },
      ""));
  return *this;
}

bool Flag::given() const { return option_->count() > 0; }

std::string Flag::name() const { return option_->get_name(); }

FlagSet::FlagSet(CLI::App& app, const std::string& name, const std::string& description)
    : app_(app.add_subcommand(name, description)) {}

template <typename T>
Flag FlagSet::Add(const std::string& name, T& value, const std::string& help) const {
  CLI::Option* option = app_->add_option(name, value, help);
  // An unset variable of a script must not mean "as if the flag were not there".
  option->check(CLI::Validator(
      [](std::string& text) -> std::string { return text.empty() ? "needs a value" : ""; }, ""));
  return Flag(option);
}

template Flag FlagSet::Add(const std::string&, int&, const std::string&) const;
template Flag FlagSet::Add(const std::string&, int64_t&, const std::string&) const;
template Flag FlagSet::Add(const std::string&, uint64_t&, const std::string&) const;
template Flag FlagSet::Add(const std::string&, double&, const std::string&) const;
template Flag FlagSet::Add(const std::string&, std::string&, const std::string&) const;
template Flag FlagSet::Add(const std::string&, std::vector<std::string>&, const std::string&) const;
template Flag FlagSet::Add(const std::string&, std::optional<int64_t>&, const std::string&) const;
template Flag FlagSet::Add(const std::string&, std::optional<double>&, const std::string&) const;
template Flag FlagSet::Add(const std::string&, std::optional<std::string>&,
                           const std::string&) const;

Flag FlagSet::AddSwitch(const std::string& name, bool& value, const std::string& help) const {
  return Flag(app_->add_flag(name, value, help));
}

void FlagSet::Footer(const std::string& text) const { app_->footer(text); }

}  // namespace quantmill
