#include <array>
#include <cctype>

#include "formats/tokenizer/jinja.h"
#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill::jinja {
namespace {

constexpr std::string_view kSpace = " \t\n\r\f\v";
constexpr std::array<std::string_view, 5> kLongOperators = {"==", "!=", "<=", ">=", "//"};

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& where) : where_(where) {
    // Jinja reads every kind of newline as \n and drops one at the end.
    for (size_t i = 0; i < source.size(); ++i) {
      if (source[i] != '\r') {
        source_ += source[i];
      } else if (i + 1 == source.size() || source[i + 1] != '\n') {
        source_ += '\n';
      }
    }
    if (!source_.empty() && source_.back() == '\n') source_.pop_back();
  }

  std::vector<Token> Run() {
    while (pos_ < source_.size()) {
      Text();
      if (pos_ < source_.size()) Tag();
    }
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool At(std::string_view text) const { return source_.compare(pos_, text.size(), text) == 0; }

  void Add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void Advance(size_t count) {
    for (size_t i = 0; i < count; ++i) line_ += source_[pos_ + i] == '\n';
    pos_ += count;
  }

  // Text up to the next tag, trimmed as that tag says.
  void Text() {
    size_t end = pos_;
    while (end < source_.size()) {
      end = source_.find('{', end);
      if (end == std::string::npos) end = source_.size();
      if (end + 1 < source_.size() &&
          std::string_view("{%#").find(source_[end + 1]) != std::string_view::npos) {
        break;
      }
      if (end < source_.size()) ++end;
    }
    std::string text = source_.substr(pos_, end - pos_);
    if (end < source_.size()) TrimBefore(source_[end + 1], end + 2, text);
    if (!text.empty()) Add(TokenKind::kText, text);
    Advance(end - pos_);
  }

  void TrimBefore(char kind, size_t sign_at, std::string& text) const {
    const char sign = sign_at < source_.size() ? source_[sign_at] : '\0';
    if (sign == '-') {
      text.erase(text.find_last_not_of(kSpace) + 1);
    } else if (sign != '+' && kind != '{') {  // lstrip_blocks
      const size_t newline = text.rfind('\n');
      const size_t line = newline == std::string::npos ? 0 : newline + 1;
      const bool starts_line = newline != std::string::npos || line_starting_;
      if (starts_line && text.find_first_not_of(kSpace, line) == std::string::npos) {
        text.erase(line);
      }
    }
  }

  void Tag() {
    const char kind = source_[pos_ + 1];
    if (kind == '#') {
      const size_t end = source_.find("#}", pos_ + 2);
      if (end == std::string::npos) Fail(where_, line_, "a comment is not closed");
      const bool signed_open = source_[pos_ + 2] == '-' || source_[pos_ + 2] == '+';
      const char sign = end > pos_ + (signed_open ? 3 : 2) ? source_[end - 1] : '\0';
      Advance(end + 2 - pos_);
      TrimAfter(sign, true);
      return;
    }
    const std::string close = kind == '{' ? "}}" : "%}";
    Add(TokenKind::kOperator, source_.substr(pos_, 2));
    Advance(2);
    if (At("-") || At("+")) Advance(1);  // TrimBefore has seen it
    std::string nesting;                 // open brackets: "}}" may also close dicts
    for (;;) {
      Advance(std::min(source_.find_first_not_of(kSpace, pos_), source_.size()) - pos_);
      if (pos_ >= source_.size()) Fail(where_, line_, "a tag is not closed");
      const bool signed_close =
          (At("-") || (At("+") && kind == '%')) && source_.compare(pos_ + 1, 2, close) == 0;
      if (nesting.empty() && (signed_close || At(close))) {
        const char sign = signed_close ? source_[pos_] : '\0';
        Add(TokenKind::kOperator, close);
        Advance(signed_close ? 3 : 2);
        TrimAfter(sign, kind == '%');
        return;
      }
      const char c = source_[pos_];
      if (c == '(' || c == '[' || c == '{') nesting += c;
      if ((c == ')' || c == ']' || c == '}') && !nesting.empty()) nesting.pop_back();
      ExpressionToken();
    }
  }

  // After a tag: "-" eats white space, a block or comment one newline (trim_blocks).
  void TrimAfter(char sign, bool trims_newline) {
    const size_t begin = pos_;
    if (sign == '-') {
      Advance(std::min(source_.find_first_not_of(kSpace, pos_), source_.size()) - pos_);
    } else if (sign != '+' && trims_newline && At("\n")) {
      Advance(1);
    }
    line_starting_ = pos_ > begin && source_[pos_ - 1] == '\n';
  }

  void ExpressionToken() {
    const char c = source_[pos_];
    const auto is_name = [](char x) {
      return std::isalnum(static_cast<unsigned char>(x)) != 0 || x == '_';
    };
    if (c == '\'' || c == '"') return String(c);
    if (is_name(c)) {
      size_t end = pos_;
      while (end < source_.size() && is_name(source_[end])) ++end;
      const std::string text = source_.substr(pos_, end - pos_);
      const bool integer = text.find_first_not_of("0123456789") == std::string::npos;
      if (!integer && std::isdigit(static_cast<unsigned char>(c)) != 0) {
        Fail(where_, line_, "the number " + text + " is not supported");
      }
      if (integer && end + 1 < source_.size() && source_[end] == '.' &&
          std::isdigit(static_cast<unsigned char>(source_[end + 1])) != 0) {
        Fail(where_, line_, "fractions are not supported");
      }
      if (integer && text.size() > 9) Fail(where_, line_, "the number " + text + " is too large");
      Add(integer ? TokenKind::kInteger : TokenKind::kName, text);
      return Advance(text.size());
    }
    for (const std::string_view op : kLongOperators) {
      if (At(op)) {
        Add(TokenKind::kOperator, std::string(op));
        return Advance(op.size());
      }
    }
    if (std::string_view("+-*%~<>=()[]{},.:|").find(c) == std::string_view::npos || At("**")) {
      Fail(where_, line_, std::string("unexpected character ") + c);
    }
    Add(TokenKind::kOperator, std::string(1, c));
    Advance(1);
  }

  void String(char quote) {
    std::string text;
    size_t at = pos_ + 1;
    for (;; ++at) {
      if (at >= source_.size()) Fail(where_, line_, "a string is not closed");
      const char c = source_[at];
      if (c == quote) break;
      if (c != '\\') {
        text += c;
      } else {
        at = Escape(at + 1, text);
      }
    }
    Add(TokenKind::kString, text);
    Advance(at + 1 - pos_);
  }

  // Appends the escape whose letter is at `at`; returns its last character.
  size_t Escape(size_t at, std::string& text) {
    const char c = at < source_.size() ? source_[at] : '\0';
    constexpr std::string_view kFrom = "ntr\\'\"bfav";
    constexpr std::string_view kTo = "\n\t\r\\'\"\b\f\a\v";
    const size_t found = kFrom.find(c);
    if (found != std::string_view::npos) {
      text += kTo[found];
      return at;
    }
    const size_t length = c == 'x' ? 2 : c == 'u' ? 4 : 0;
    const std::string digits = at < source_.size() ? source_.substr(at + 1, length) : "";
    if (length == 0 || digits.size() != length ||
        digits.find_first_not_of("0123456789abcdefABCDEF") != std::string::npos) {
      Fail(where_, line_, std::string("the escape \\") + c + " is not supported");
    }
    const auto code_point = static_cast<char32_t>(std::stoul(digits, nullptr, 16));
    if (code_point >= 0xD800 && code_point < 0xE000) Fail(where_, line_, "a surrogate escape");
    AppendUtf8(code_point, text);
    return at + length;
  }

  std::string source_;
  const std::string& where_;
  std::vector<Token> tokens_;
  size_t pos_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
};

}  // namespace

void Fail(const std::string& where, int line, const std::string& what) {
  throw Error(ErrorCode::kBadInput, where, "line " + std::to_string(line) + ": " + what);
}

std::vector<Token> Tokenize(std::string_view source, const std::string& where) {
  return Lexer(source, where).Run();
}

}  // namespace quantmill::jinja
