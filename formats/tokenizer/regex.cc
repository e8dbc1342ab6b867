#include "formats/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

#include "formats/tokenizer/unicode.h"
#include "formats/tokenizer/unicode_versions.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr size_t kJitStackStart = 32 * 1024;
constexpr size_t kJitStackMax = 64 * 1024 * 1024;

std::string PcreMessage(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  std::string where;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::unique_ptr<Code> code) : code_(std::move(code)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

Regex Regex::FromPattern(std::string_view pattern, const std::string& where) {
  const std::string fast = TranslatePattern(pattern, where, false);
  const std::string exact = TranslatePattern(pattern, where, true);
  Regex regex(Compile(fast, where));
  if (exact != fast) regex.exact_code_ = Compile(exact, where);
  return regex;
}

Regex Regex::FromPcre(const std::string& pattern, const std::string& where) {
  return Regex(Compile(pattern, where));
}

std::unique_ptr<Regex::Code> Regex::Compile(const std::string& pattern, const std::string& where) {
  auto compiled = std::make_unique<Code>();
  compiled->where = where;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  Check(context != nullptr, "out of memory");
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);  // `.` excludes \n only
  int error = 0;
  PCRE2_SIZE offset = 0;
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context);
  pcre2_compile_context_free(context);
  if (compiled->code == nullptr) {
    throw Error(ErrorCode::kBadInput, where,
                "bad regular expression: " + PcreMessage(error) + " at byte " +
                    std::to_string(offset) + " of " + pattern);
  }
  // Without JIT (a hardened kernel) the interpreter gives the same matches, slower.
  pcre2_jit_compile(compiled->code, PCRE2_JIT_COMPLETE);
  return compiled;
}

struct Regex::Matcher::State {
  const Code* code = nullptr;  // in use
  const Code* fast_code = nullptr;
  const Code* exact_code = nullptr;  // may be null
  std::string_view text;
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
  State() = default;
  State(const State&) = delete;
  State& operator=(const State&) = delete;
  ~State() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Regex::Matcher::Matcher(const Regex& regex) : state_(std::make_unique<State>()) {
  state_->code = state_->fast_code = regex.code_.get();
  state_->exact_code = regex.exact_code_.get();
  state_->data = pcre2_match_data_create(1, nullptr);  // only the whole match is asked for
  state_->context = pcre2_match_context_create(nullptr);
  Check(state_->data != nullptr && state_->context != nullptr, "out of memory");
}

Regex::Matcher::~Matcher() = default;

void Regex::Matcher::SetText(std::string_view text) {
  State& s = *state_;
  s.text = text;
  s.code = s.fast_code;
  for (size_t pos = 0; s.exact_code != nullptr && pos < text.size();) {
    if (static_cast<unsigned char>(text[pos]) < 0xE0) {  // below U+0800, and so old
      ++pos;
    } else if (HasPropertySinceUnicode15(NextCodePoint(text, pos))) {
      s.code = s.exact_code;
      return;
    }
  }
}

std::optional<Regex::Match> Regex::Matcher::Search(size_t from) {
  State& s = *state_;
  const std::string_view text = s.text;
  // An empty view may carry a null pointer, which PCRE2 refuses.
  const char* data = text.empty() ? "" : text.data();
  const auto run = [&] {
    return pcre2_match(s.code->code, reinterpret_cast<PCRE2_SPTR>(data), text.size(), from,
                       PCRE2_NO_UTF_CHECK, s.data, s.context);
  };
  int found = run();
  if (found == PCRE2_ERROR_JIT_STACKLIMIT && s.stack == nullptr) {
    s.stack = pcre2_jit_stack_create(kJitStackStart, kJitStackMax, nullptr);
    Check(s.stack != nullptr, "out of memory");
    pcre2_jit_stack_assign(s.context, nullptr, s.stack);
    found = run();
  }
  if (found == PCRE2_ERROR_NOMATCH) return std::nullopt;
  if (found < 0) {
    throw Error(ErrorCode::kBadInput, s.code->where,
                "regular expression failed on the text at byte " + std::to_string(from) + ": " +
                    PcreMessage(found));
  }
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(s.data);
  return Match{span[0], span[1]};
}

size_t Regex::NextStart(std::string_view text, size_t from) {
  return from + (from < text.size() ? Utf8Length(text[from]) : 1);
}

}  // namespace quantmill
