// TranslatePattern: one pass over the pattern, copying what both libraries read alike, rewriting
// what they read differently and refusing the rest.
#include <algorithm>
#include <array>
#include <cctype>
#include <vector>

#include "formats/tokenizer/regex.h"
#include "formats/tokenizer/unicode.h"
#include "formats/tokenizer/unicode_versions.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Under (?i) Oniguruma folds these pairs to one code point (ligatures, sharp s); PCRE2 does not.
constexpr std::array<std::string_view, 5> kMultiFolds = {"ff", "fi", "fl", "ss", "st"};

// Without C and Cn, which shrink with every Unicode version, and without Mn and Mc, between which
// one code point moved.
constexpr std::string_view kCategories =
    " Cc Cf Co L Ll Lm Lo Lt Lu M Me N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs ";
constexpr std::string_view kScripts =
    " Arabic Armenian Bengali Bopomofo Cherokee Cyrillic Devanagari Ethiopic Georgian Greek "
    "Gujarati Gurmukhi Han Hangul Hebrew Hiragana Kannada Katakana Khmer Lao Latin Malayalam "
    "Mongolian Myanmar Oriya Sinhala Syriac Tamil Telugu Thaana Thai Tibetan ";

bool Listed(std::string_view list, const std::string& name) {
  std::string padded = " ";
  padded.append(name).append(" ");
  return name.find(' ') == std::string::npos && list.find(padded) != std::string::npos;
}

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where, bool since_unicode_15)
      : pattern_(pattern), where_(where), exact_(since_unicode_15), caseless_{false} {}

  std::string Run() {
    if (const auto bad = FindInvalidUtf8(pattern_)) Refuse("invalid UTF-8");
    if (pattern_.empty()) Refuse("an empty pattern");
    if (pattern_.substr(0, 4) == "(?i)") {
      caseless_.back() = true;
      out_ = "(?i)";
      pos_ = 4;
    }
    while (pos_ < pattern_.size()) Step();
    return std::move(out_);
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    throw Error(ErrorCode::kBadInput, where_,
                "regular expression not supported: " + what + " at byte " + std::to_string(pos_) +
                    " of " + std::string(pattern_));
  }

  char Peek(size_t ahead = 0) const {
    return pos_ + ahead < pattern_.size() ? pattern_[pos_ + ahead] : '\0';
  }

  void Step() {
    switch (Peek()) {
      case '\\':
        ++pos_;
        Escape(false);
        break;
      case '[':
        Class();
        break;
      case '(':
        OpenGroup();
        break;
      case ')':
        if (caseless_.size() > 1) caseless_.pop_back();
        Copy();
        break;
      case '{':
        Interval();
        break;
      case '^':  // line begin, but not after a newline that ends the text
        Emit("(?:\\A|(?<=\\n)(?!\\z))");
        break;
      case '$':  // line end
        Emit("(?=\\n|\\z)");
        break;
      default:
        Literal();
    }
  }

  void Emit(std::string_view text) {
    out_ += text;
    ++pos_;
    last_literal_ = '\0';
  }
  void Copy() { Emit(pattern_.substr(pos_, 1)); }

  // Copies one code point; under (?i) checks that both libraries fold it alike.
  void Literal() {
    const char c = Peek();
    if (c == '\0') Refuse("a NUL byte");
    const size_t length = Utf8Length(c);
    out_ += pattern_.substr(pos_, length);
    pos_ += length;
    if (!caseless_.back()) return;
    if (length > 1) Refuse("a letter outside ASCII under (?i)");
    const char lower = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    const std::string pair{last_literal_, lower};
    if (std::find(kMultiFolds.begin(), kMultiFolds.end(), pair) != kMultiFolds.end()) {
      Refuse("the letters \"" + pair + "\" under (?i)");
    }
    last_literal_ = lower;
  }

  void OpenGroup() {
    bool caseless = caseless_.back();
    size_t length = 1;
    if (Peek(1) == '?') {
      const std::string_view rest = pattern_.substr(pos_);
      for (const std::string_view open : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:"}) {
        if (rest.substr(0, open.size()) == open) length = open.size();
      }
      if (length == 1) Refuse("group type " + std::string(rest.substr(0, 4)));
      caseless = caseless || rest.substr(0, 4) == "(?i:";
    } else if (Peek(1) == '*') {
      Refuse("group type (*");
    }
    out_ += pattern_.substr(pos_, length);
    pos_ += length;
    caseless_.push_back(caseless);
    last_literal_ = '\0';
  }

  // {n}, {n,}, {n,m}, {,m}: followed by `+` or, for {n}, by `?` the two libraries differ.
  void Interval() {
    size_t end = pos_ + 1;
    std::array<std::string, 2> bounds;
    size_t index = 0;
    for (; end < pattern_.size(); ++end) {
      const char c = pattern_[end];
      if (c == ',' && index == 0) {
        index = 1;
      } else if (std::isdigit(static_cast<unsigned char>(c)) != 0) {
        bounds[index].push_back(c);
      } else {
        break;
      }
    }
    const bool valid =
        end < pattern_.size() && pattern_[end] == '}' && (!bounds[0].empty() || !bounds[1].empty());
    if (!valid) {
      Emit("\\{");
      return;
    }
    const char after = end + 1 < pattern_.size() ? pattern_[end + 1] : '\0';
    if (after == '+' || after == '*' || (after == '?' && index == 0)) Refuse("a quantified {n}");
    out_.append("{").append(bounds[0].empty() ? "0" : bounds[0]);
    if (index == 1) out_.append(",").append(bounds[1]);
    out_ += "}";
    pos_ = end + 1;
    last_literal_ = '\0';
  }

  void Class() {
    Copy();
    if (Peek() == '^') Copy();
    if (Peek() == ']') Refuse("an empty class");
    while (Peek() != ']') {
      if (Peek() == '[') {
        NestedClass();
      } else {
        ClassItem();
      }
    }
    Copy();
  }

  void ClassItem() {
    if (pos_ >= pattern_.size()) Refuse("an unclosed class");
    if (Peek() == '&' && Peek(1) == '&') Refuse("a class intersection");
    last_literal_ = '\0';
    if (Peek() == '\\') {
      ++pos_;
      Escape(true);
    } else {
      Literal();
    }
  }

  // `[a[bc]]` is a union: `[abc]`. One that negates, and ranges in or beside it, are no lists.
  void NestedClass() {
    if (Peek(1) == '^' || Peek(1) == ':' || Peek(1) == ']') Refuse("a nested class of this kind");
    if (pattern_[pos_ - 1] == '-') Refuse("a range beside a nested class");
    ++pos_;
    while (Peek() != ']') {
      if (Peek() == '-' || Peek() == '[') Refuse("a range or a class in a nested class");
      ClassItem();
    }
    ++pos_;
    if (Peek() == '-') Refuse("a range beside a nested class");
  }

  // After the backslash.
  void Escape(bool in_class) {
    const char c = Peek();
    const std::string_view simple = SimpleEscape(c);
    if (!simple.empty()) return Emit(simple);
    if (c == 's' || c == 'S' || c == 'd' || c == 'D' || c == 'w' || c == 'W') {
      return Shorthand(c, in_class);
    }
    if (c == 'p' || c == 'P') return Property(in_class);
    if (c == 'x' || c == 'u') return CodePoint();
    if (!in_class && (c == 'A' || c == 'z')) return Emit(c == 'A' ? "\\A" : "\\z");
    const auto byte = static_cast<unsigned char>(c);
    if (c == '\0' || byte >= 0x80 || (std::isalnum(byte) != 0)) {
      Refuse(std::string("escape \\") + c);
    }
    // Punctuation or a space: itself.
    if (std::ispunct(byte) != 0) out_ += '\\';
    Copy();
  }

  static std::string_view SimpleEscape(char c) {
    switch (c) {
      case 't':
        return "\\t";
      case 'n':
        return "\\n";
      case 'r':
        return "\\r";
      case 'f':
        return "\\f";
      case 'v':
        return "\\x0b";  // PCRE2's \v is a class
      case 'a':
        return "\\x07";
      case 'e':
        return "\\x1b";
      default:
        return {};
    }
  }

  void Shorthand(char c, bool in_class) {
    if (caseless_.back()) Refuse("a class under (?i)");
    ++pos_;
    last_literal_ = '\0';
    const bool negated = std::isupper(static_cast<unsigned char>(c)) != 0;
    if (c == 's' || c == 'S') {
      EmitItems("\\p{White_Space}", negated, in_class);
    } else if (c == 'd' || c == 'D') {
      EmitItems(PropertyItems("Nd"), negated, in_class);
    } else {
      // Oniguruma counts the Latin-1 superscripts and fractions as word characters.
      std::string items = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";
      for (const CodePointRange& range : kWordSinceUnicode15) {
        if (exact_) AppendRange(range.first, range.last, items);
      }
      EmitItems(items, negated, in_class);
    }
  }

  // Class items for one property; more than one in the exact form.
  std::string PropertyItems(const std::string& name) const {
    std::string items = Listed(kScripts, name) ? "\\p{sc:" : "\\p{";  // not the script extensions
    items.append(name).append("}");
    if (!exact_) return items;
    for (const PropertyRange& range : kCategorySinceUnicode15) {
      if (range.property.substr(0, name.size()) == name) {
        AppendRange(range.first, range.last, items);
      }
    }
    for (const PropertyRange& range : kScriptSinceUnicode15) {
      if (range.property == name) AppendRange(range.first, range.last, items);
    }
    return items;
  }

  static void AppendRange(char32_t first, char32_t last, std::string& items) {
    AppendUtf8(first, items);
    items += '-';
    AppendUtf8(last, items);
  }

  void EmitItems(const std::string& items, bool negated, bool in_class) {
    const bool single = items.find('}') + 1 == items.size();
    if (single && negated) {
      out_.append("\\P").append(items, 2);
    } else if (single || (in_class && !negated)) {
      out_ += items;
    } else if (in_class) {
      Refuse("a negated property inside a class");
    } else {
      out_.append(negated ? "[^" : "[").append(items).append("]");
    }
  }

  // p{Name}, p{^Name}, P{Name}.
  void Property(bool in_class) {
    if (caseless_.back()) Refuse("a class under (?i)");
    bool negated = Peek() == 'P';
    const size_t close = pattern_.find('}', pos_);
    if (Peek(1) != '{' || close == std::string_view::npos) Refuse("a property without {name}");
    std::string name(pattern_.substr(pos_ + 2, close - pos_ - 2));
    if (!name.empty() && name[0] == '^') {
      negated = !negated;
      name.erase(0, 1);
    }
    if (!Listed(kScripts, name) && !Listed(kCategories, name)) Refuse("property " + name);
    EmitItems(PropertyItems(name), negated, in_class);
    pos_ = close + 1;
    last_literal_ = '\0';
  }

  // xHH (ASCII), x{H..H} or uHHHH.
  void CodePoint() {
    if (caseless_.back()) Refuse("a numeric escape under (?i)");
    const bool braces = Peek() == 'x' && Peek(1) == '{';
    const size_t first = pos_ + (braces ? 2 : 1);
    const size_t limit = braces ? 6 : Peek() == 'x' ? 2 : 4;
    size_t end = first;
    while (end < pattern_.size() && end < first + limit &&
           std::isxdigit(static_cast<unsigned char>(pattern_[end])) != 0) {
      ++end;
    }
    const std::string digits(pattern_.substr(first, end - first));
    const bool closed = braces ? end < pattern_.size() && pattern_[end] == '}' && !digits.empty()
                               : digits.size() == limit;
    if (!closed) Refuse("a malformed numeric escape");
    if (Peek() == 'x' && !braces && digits[0] >= '8') Refuse("a byte escape outside ASCII");
    out_.append("\\x{").append(digits).append("}");
    pos_ = end + (braces ? 1 : 0);
    last_literal_ = '\0';
  }

  std::string_view pattern_;
  const std::string& where_;
  bool exact_;
  std::string out_;
  size_t pos_ = 0;
  std::vector<bool> caseless_;  // one entry per open group
  char last_literal_ = '\0';
};

}  // namespace

std::string TranslatePattern(std::string_view pattern, const std::string& where,
                             bool since_unicode_15) {
  return Translator(pattern, where, since_unicode_15).Run();
}

}  // namespace quantmill
