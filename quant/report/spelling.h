// What a user may have meant by a name that nothing has.
#ifndef QUANTMILL_QUANT_REPORT_SPELLING_H_
#define QUANTMILL_QUANT_REPORT_SPELLING_H_

#include <span>
#include <string>
#include <string_view>

namespace quantmill {

// The one of `names` that `word` is probably a misspelling of, or nothing. Distance counts changed,
// missing, added and swapped letters; at most a third of the word may differ.
std::string NearestName(std::string_view word, std::span<const std::string> names);

// "; did you mean 'gptq'?" or nothing.
std::string Suggestion(std::string_view word, std::span<const std::string> names);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_REPORT_SPELLING_H_
