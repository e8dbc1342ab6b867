// Pre-tokenizers: the split of normalized text into words, each of which the model sees alone.
#ifndef QUANTMILL_FORMATS_TOKENIZER_PRE_TOKENIZER_H_
#define QUANTMILL_FORMATS_TOKENIZER_PRE_TOKENIZER_H_

#include <memory>
#include <string>
#include <vector>

#include "formats/tokenizer/pieces.h"
#include "formats/tokenizer/regex.h"

namespace quantmill {

// One way to split. Immutable and thread-safe.
class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  // Splits every text piece of `list` and may rewrite its text; pieces that are tokens stay.
  virtual void Apply(PieceList& list) const = 0;
  // True when the result depends on Piece::starts_input.
  virtual bool NeedsStart() const { return false; }
  // True when Piece::starts_input of the result is exact, given an exact one.
  virtual bool KeepsStart() const { return true; }
};

// What becomes of the parts that a pattern matches. "the-final--countdown" split on "-":
enum class SplitBehavior {
  kRemoved,             // the|final|countdown
  kIsolated,            // the|-|final|-|-|countdown
  kMergedWithPrevious,  // the-|final-|-|countdown
  kMergedWithNext,      // the|-final|-|-countdown
  kContiguous           // the|-|final|--|countdown
};

enum class PrependScheme { kFirst, kAlways, kNever };

// Splits on matches of `pattern`; with `invert` on what it does not match.
std::unique_ptr<PreTokenizer> MakeSplitRegex(Regex pattern, SplitBehavior behavior, bool invert);
// The same for occurrences of the non-empty text `pattern`.
std::unique_ptr<PreTokenizer> MakeSplitString(std::string pattern, SplitBehavior behavior,
                                              bool invert);
// Numeric code points (Nd, Nl, No): each its own piece, or each run.
std::unique_ptr<PreTokenizer> MakeDigits(bool individual_digits);
// ASCII punctuation and P*.
std::unique_ptr<PreTokenizer> MakePunctuation(SplitBehavior behavior);
// Words `\w+` and runs of other non-space code points; white space is dropped.
std::unique_ptr<PreTokenizer> MakeWhitespace();
// Cuts at White_Space, which is dropped.
std::unique_ptr<PreTokenizer> MakeWhitespaceSplit();
// GPT-2: optionally a space before a piece that has none, optionally GPT-2's split pattern, then
// each byte as its code point of the byte alphabet.
std::unique_ptr<PreTokenizer> MakeByteLevel(bool add_prefix_space, bool use_regex);
// Spaces become `replacement` (one code point), which is also put before a piece that does not
// start with it: before every piece, before the one that starts the input, or never. With `split`
// cuts before each `replacement`.
std::unique_ptr<PreTokenizer> MakeMetaspace(std::string replacement, PrependScheme scheme,
                                            bool split);
// All of `parts` in order. Precondition: no part that needs the start follows one that loses it.
std::unique_ptr<PreTokenizer> MakePreTokenizerSequence(
    std::vector<std::unique_ptr<PreTokenizer>> parts);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_PRE_TOKENIZER_H_
