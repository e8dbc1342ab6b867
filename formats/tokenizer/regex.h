// Regular expressions of tokenizer files on PCRE2.
#ifndef QUANTMILL_FORMATS_TOKENIZER_REGEX_H_
#define QUANTMILL_FORMATS_TOKENIZER_REGEX_H_

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace quantmill {

// Rewrites `pattern`, in the syntax that tokenizer files use (Oniguruma's, with Unicode classes),
// as a PCRE2 pattern that matches the same texts: `\s` becomes White_Space, `\p{Han}` the script
// and not its extensions, and so on. Throws Error(kBadInput, where) for a construct whose meaning
// differs between the two libraries and is not rewritten (nested classes that are no plain lists,
// `&&`, `\b`, `\h`, back-references, named groups, classes under `(?i)`, ...): nothing is
// approximated.
// Classes are exact for texts without code points of HasPropertySinceUnicode15; with
// `since_unicode_15` for all texts, but then slower.
std::string TranslatePattern(std::string_view pattern, const std::string& where,
                             bool since_unicode_15);

// One compiled pattern. Immutable and thread-safe; each thread matches through its own Matcher.
class Regex {
 public:
  // `pattern` is in the syntax of tokenizer files. Throws Error(kBadInput, where).
  static Regex FromPattern(std::string_view pattern, const std::string& where);
  // `pattern` is PCRE2's own. Throws Error(kBadInput, where).
  static Regex FromPcre(const std::string& pattern, const std::string& where);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // A match in bytes: [begin, end) of the text.
  struct Match {
    size_t begin;
    size_t end;
  };

  // State of one search. Borrows the Regex, which must outlive it. Not thread-safe.
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    ~Matcher();
    Matcher(const Matcher&) = delete;
    Matcher& operator=(const Matcher&) = delete;

    // The text to search: well-formed UTF-8, borrowed, and all that look-around sees.
    void SetText(std::string_view text);
    // First match at or after byte `from` (a code point boundary). Throws Error(kBadInput) when the
    // pattern exceeds PCRE2's resource limits on this text.
    std::optional<Match> Search(size_t from);

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

  // Calls on_match(begin, end) for every match of `text`, left to right, without overlap. An empty
  // match right after the previous match is skipped, as the reference library does.
  template <typename OnMatch>
  void ForEachMatch(std::string_view text, OnMatch&& on_match) const {
    Matcher matcher(*this);
    ForEachMatch(matcher, text, on_match);
  }
  // The same with a Matcher that the caller keeps for many texts.
  template <typename OnMatch>
  static void ForEachMatch(Matcher& matcher, std::string_view text, OnMatch&& on_match) {
    size_t from = 0;
    size_t last_end = std::string_view::npos;
    matcher.SetText(text);
    while (from <= text.size()) {
      const std::optional<Match> match = matcher.Search(from);
      if (!match) return;
      if (match->begin == match->end && match->end == last_end) {
        from = NextStart(text, from);
        continue;
      }
      from = last_end = match->end;
      on_match(match->begin, match->end);
    }
  }

 private:
  struct Code;
  explicit Regex(std::unique_ptr<Code> code);
  static std::unique_ptr<Code> Compile(const std::string& pattern, const std::string& where);
  static size_t NextStart(std::string_view text, size_t from);

  std::unique_ptr<Code> code_;
  std::unique_ptr<Code> exact_code_;  // for texts with newer code points; may be null
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_REGEX_H_
