// Normalizers: text -> text, before the split into words.
#ifndef QUANTMILL_FORMATS_TOKENIZER_NORMALIZER_H_
#define QUANTMILL_FORMATS_TOKENIZER_NORMALIZER_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer/regex.h"

namespace quantmill {

// One rewriting of text. Immutable and thread-safe.
class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // Rewrites `text` (well-formed UTF-8, stays so) in place. Deterministic.
  virtual void Apply(std::string& text) const = 0;
  // True when the result's first code point always stems from the text's first one: then "this
  // piece starts the text" is still known after normalization.
  virtual bool KeepsStart() const = 0;
};

enum class UnicodeForm { kNfc, kNfd, kNfkc, kNfkd };

// Unicode normalization form (utf8proc's tables).
std::unique_ptr<Normalizer> MakeUnicodeNormalizer(UnicodeForm form);
// Every code point by its own full lower-case mapping (no context: final sigma stays sigma).
std::unique_ptr<Normalizer> MakeLowercase();
// `prefix` before any non-empty text.
std::unique_ptr<Normalizer> MakePrepend(std::string prefix);
// Every occurrence of the non-empty `pattern`, left to right, becomes `content`.
std::unique_ptr<Normalizer> MakeReplaceString(std::string pattern, std::string content);
// Every match of `pattern` becomes `content` (taken literally).
std::unique_ptr<Normalizer> MakeReplaceRegex(Regex pattern, std::string content);
// Drops White_Space at the chosen ends.
std::unique_ptr<Normalizer> MakeStripNormalizer(bool left, bool right);
// Each byte becomes its code point of the GPT-2 byte alphabet.
std::unique_ptr<Normalizer> MakeByteLevelNormalizer();
// All of `parts`, in order.
std::unique_ptr<Normalizer> MakeNormalizerSequence(std::vector<std::unique_ptr<Normalizer>> parts);

// The body of MakeReplaceString, for other components: `text` with every `pattern` replaced.
std::string ReplaceAll(std::string_view text, std::string_view pattern, std::string_view content);
// The same for a regular expression.
std::string ReplaceAll(std::string_view text, const Regex& pattern, std::string_view content);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_NORMALIZER_H_
