// Values of flags: checks, units, and what the user may have meant.
#ifndef QUANTMILL_TOOLS_FLAGS_H_
#define QUANTMILL_TOOLS_FLAGS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quantmill {

// The one of `names` that `word` is probably a misspelling of, or nothing. Distance counts changed,
// missing, added and swapped letters; at most a third of the word may differ.
std::string NearestName(std::string_view word, std::span<const std::string> names);

// "; did you mean 'gptq'?" or nothing.
std::string Suggestion(std::string_view word, std::span<const std::string> names);

// What an option accepts, shown in --help and checked; a wrong value is told what is allowed.
// Return `option`.
CLI::Option* TakesOneOf(CLI::Option* option, std::vector<std::string> names);
CLI::Option* TakesInteger(CLI::Option* option, int64_t low, int64_t high);
CLI::Option* TakesNumber(CLI::Option* option, double low, double high);

// "2GiB", "500MB", "1.5 G" (decimal), "1048576" -> bytes. Throws Error(kUsage, flag).
int64_t ParseByteSize(const std::string& text, const std::string& flag);

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_FLAGS_H_
