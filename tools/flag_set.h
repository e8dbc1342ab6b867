// The flags of a subcommand. Compiling CLI11's headers takes longer than most of the sources that
// declare flags: they are included by flag_set.cc and command_line.cc alone.
#ifndef QUANTMILL_TOOLS_FLAG_SET_H_
#define QUANTMILL_TOOLS_FLAG_SET_H_

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace quantmill {

struct IntegerRange;

// A handle of a flag, or of an argument without a name, in a FlagSet. What it accepts is shown in
// --help and checked when the command line is parsed; a wrong value is told what is allowed.
class Flag {
 public:
  explicit Flag(CLI::Option* option) : option_(option) {}

  const Flag& Required() const;
  const Flag& ValueName(const std::string& name) const;  // in --help; "": none
  const Flag& Group(const std::string& title) const;     // in --help
  const Flag& Repeats() const;                           // one value each time it is given
  const Flag& OneOf(std::vector<std::string> names) const;
  const Flag& IntegerIn(int64_t low, int64_t high) const;
  const Flag& IntegerIn(const IntegerRange& range) const;
  const Flag& NumberIn(double low, double high) const;

  // After parsing.
  bool given() const;
  std::string name() const;  // with its dashes

 private:
  CLI::Option* option_;
};

class FlagSet {
 public:
  // A subcommand of `app`, which owns what is added here.
  FlagSet(CLI::App& app, const std::string& name, const std::string& description);

  // Parsing puts what is given into `value`, which must outlive `app`; left alone otherwise. T: an
  // int, int64_t, uint64_t, double or string, a vector of strings, or optional of int64_t, double
  // or string. An empty value is refused.
  template <typename T>
  Flag Add(const std::string& name, T& value, const std::string& help) const;
  // A flag without a value.
  Flag AddSwitch(const std::string& name, bool& value, const std::string& help) const;

  // The end of --help.
  void Footer(const std::string& text) const;

  CLI::App* app() const { return app_; }

 private:
  CLI::App* app_;
};

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_FLAG_SET_H_
