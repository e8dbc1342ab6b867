// Values of flags, checked.
#ifndef QUANTMILL_TOOLS_FLAGS_H_
#define QUANTMILL_TOOLS_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

namespace quantmill {

// What an option accepts, shown in --help and checked; a wrong value is told what is allowed.
// Return `option`.
CLI::Option* TakesOneOf(CLI::Option* option, std::vector<std::string> names);
CLI::Option* TakesInteger(CLI::Option* option, int64_t low, int64_t high);
CLI::Option* TakesNumber(CLI::Option* option, double low, double high);

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_FLAGS_H_
