#include "formats/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <utility>

#include "formats/tokenizer/unicode.h"
#include "formats/tokenizer/unicode_versions.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

utf8proc_option_t FormOptions(UnicodeForm form) {
  int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
  if (form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc) options |= UTF8PROC_COMPOSE;
  if (form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd) options |= UTF8PROC_COMPAT;
  return static_cast<utf8proc_option_t>(options);
}

class UnicodeNormalizer : public Normalizer {
 public:
  explicit UnicodeNormalizer(UnicodeForm form)
      : options_(FormOptions(form)), keeps_start_(form == UnicodeForm::kNfc) {}

  // ASCII neither changes nor combines with what precedes it, so only a run of other code points
  // with the ASCII character before it needs the tables.
  void Apply(std::string& text) const override {
    const auto is_ascii = [](char c) { return static_cast<unsigned char>(c) < 0x80; };
    if (std::all_of(text.begin(), text.end(), is_ascii)) return;
    std::string out;
    out.reserve(text.size());
    for (size_t done = 0; done < text.size();) {
      size_t begin = done;
      while (begin < text.size() && is_ascii(text[begin])) ++begin;
      if (begin > done && begin < text.size()) --begin;
      out.append(text, done, begin - done);
      const size_t end = RunEnd(text, begin);
      if (end > begin) AppendNormalized(std::string_view(text).substr(begin, end - begin), out);
      done = end;
      if (done == begin && done < text.size()) {  // an inert code point
        done += Utf8Length(text[done]);
        out.append(text, begin, done - begin);
      }
    }
    text = std::move(out);
  }

  bool KeepsStart() const override { return keeps_start_; }

 private:
  // End of the code points from `begin` that may combine: at most one ASCII character, then others.
  static size_t RunEnd(std::string_view text, size_t begin) {
    size_t end = begin;
    while (end < text.size()) {
      size_t next = end;
      const char32_t code_point = NextCodePoint(text, next);
      if (code_point < 0x80 ? end > begin : InRanges(kNormalizedAfterUnicode9, code_point)) break;
      end = next;
    }
    return end;
  }

  // As utf8proc_map, whose reordering is quadratic in a run of combining marks.
  void AppendNormalized(std::string_view run, std::string& out) const {
    std::vector<utf8proc_int32_t> points;
    for (size_t pos = 0; pos < run.size();) {
      const auto code_point = static_cast<utf8proc_int32_t>(NextCodePoint(run, pos));
      std::array<utf8proc_int32_t, 32> parts{};  // 18 is the longest decomposition
      const utf8proc_ssize_t count = utf8proc_decompose_char(
          code_point, parts.data(), static_cast<utf8proc_ssize_t>(parts.size()), options_, nullptr);
      Check(count >= 0 && static_cast<size_t>(count) <= parts.size(), "utf8proc_decompose_char");
      points.insert(points.end(), parts.begin(), parts.begin() + count);
    }
    ReorderMarks(points);
    const utf8proc_ssize_t length = utf8proc_normalize_utf32(
        points.data(), static_cast<utf8proc_ssize_t>(points.size()), options_);
    Check(length >= 0, "utf8proc_normalize_utf32");
    for (size_t i = 0; i < static_cast<size_t>(length); ++i) {
      AppendUtf8(static_cast<char32_t>(points[i]), out);
    }
  }

  // Canonical ordering: each run of marks by combining class, stable.
  static void ReorderMarks(std::vector<utf8proc_int32_t>& points) {
    const auto order = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
    for (auto begin = points.begin(); begin != points.end();) {
      if (order(*begin) == 0) {
        ++begin;
        continue;
      }
      const auto end =
          std::find_if(begin, points.end(), [&](utf8proc_int32_t c) { return order(c) == 0; });
      std::stable_sort(begin, end, [&](utf8proc_int32_t left, utf8proc_int32_t right) {
        return order(left) < order(right);
      });
      begin = end;
    }
  }

  utf8proc_option_t options_;
  bool keeps_start_;
};

char32_t LowercaseOf(char32_t c) {
  for (const LowercaseRange& entry : kLowercaseSinceUnicode16) {
    if (c >= entry.range.first && c <= entry.range.last) {
      return static_cast<char32_t>(static_cast<int32_t>(c) + entry.offset);
    }
  }
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

class Lowercase : public Normalizer {
 public:
  void Apply(std::string& text) const override {
    std::string out;
    out.reserve(text.size());
    for (size_t pos = 0; pos < text.size();) {
      const char32_t c = NextCodePoint(text, pos);
      if (c == 0x130) {  // the only lower-case mapping to two code points
        out += "i\xCC\x87";
      } else {
        AppendUtf8(LowercaseOf(c), out);
      }
    }
    text = std::move(out);
  }
  bool KeepsStart() const override { return false; }  // U+0130 becomes two
};

class Prepend : public Normalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  void Apply(std::string& text) const override {
    if (!text.empty()) text.insert(0, prefix_);
  }
  bool KeepsStart() const override { return true; }

 private:
  std::string prefix_;
};

class ReplaceString : public Normalizer {
 public:
  ReplaceString(std::string pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {
    Check(!pattern_.empty(), "Replace needs a pattern");
  }
  void Apply(std::string& text) const override {
    if (text.find(pattern_) != std::string::npos) text = ReplaceAll(text, pattern_, content_);
  }
  bool KeepsStart() const override { return CountCodePoints(content_) == 1; }

 private:
  std::string pattern_;
  std::string content_;
};

class ReplaceRegex : public Normalizer {
 public:
  ReplaceRegex(Regex pattern, std::string content)
      : pattern_(std::move(pattern)), content_(std::move(content)) {}
  void Apply(std::string& text) const override { text = ReplaceAll(text, pattern_, content_); }
  bool KeepsStart() const override { return CountCodePoints(content_) == 1; }

 private:
  Regex pattern_;
  std::string content_;
};

class Strip : public Normalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  void Apply(std::string& text) const override {
    size_t begin = 0;
    size_t end = text.size();
    for (size_t next = begin; left_ && begin < end; begin = next) {
      if (!IsWhiteSpace(NextCodePoint(text, next))) break;
    }
    for (size_t start = 0; right_ && end > begin; end = start) {
      if (!IsWhiteSpace(PreviousCodePoint(text, end, start))) break;
    }
    text = text.substr(begin, end - begin);
  }
  bool KeepsStart() const override { return !left_; }

 private:
  bool left_;
  bool right_;
};

class ByteLevelNormalizer : public Normalizer {
 public:
  void Apply(std::string& text) const override {
    std::string out;
    ByteAlphabet::Get().Encode(text, out);
    text = std::move(out);
  }
  bool KeepsStart() const override { return false; }
};

class NormalizerSequence : public Normalizer {
 public:
  explicit NormalizerSequence(std::vector<std::unique_ptr<Normalizer>> parts)
      : parts_(std::move(parts)) {}
  void Apply(std::string& text) const override {
    for (const auto& part : parts_) part->Apply(text);
  }
  bool KeepsStart() const override {
    return std::all_of(parts_.begin(), parts_.end(),
                       [](const auto& part) { return part->KeepsStart(); });
  }

 private:
  std::vector<std::unique_ptr<Normalizer>> parts_;
};

}  // namespace

std::string ReplaceAll(std::string_view text, std::string_view pattern, std::string_view content) {
  std::string out;
  out.reserve(text.size() + text.size() / 4);
  size_t done = 0;
  for (size_t at = text.find(pattern); at != std::string_view::npos;
       at = text.find(pattern, done)) {
    out.append(text.substr(done, at - done)).append(content);
    done = at + pattern.size();
  }
  out.append(text.substr(done));
  return out;
}

std::string ReplaceAll(std::string_view text, const Regex& pattern, std::string_view content) {
  if (text.empty()) return {};  // not even an empty match: the reference library's rule
  std::string out;
  size_t done = 0;
  pattern.ForEachMatch(text, [&](size_t begin, size_t end) {
    out.append(text.substr(done, begin - done)).append(content);
    done = end;
  });
  out.append(text.substr(done));
  return out;
}

std::unique_ptr<Normalizer> MakeUnicodeNormalizer(UnicodeForm form) {
  return std::make_unique<UnicodeNormalizer>(form);
}
std::unique_ptr<Normalizer> MakeLowercase() { return std::make_unique<Lowercase>(); }
std::unique_ptr<Normalizer> MakePrepend(std::string prefix) {
  return std::make_unique<Prepend>(std::move(prefix));
}
std::unique_ptr<Normalizer> MakeReplaceString(std::string pattern, std::string content) {
  return std::make_unique<ReplaceString>(std::move(pattern), std::move(content));
}
std::unique_ptr<Normalizer> MakeReplaceRegex(Regex pattern, std::string content) {
  return std::make_unique<ReplaceRegex>(std::move(pattern), std::move(content));
}
std::unique_ptr<Normalizer> MakeStripNormalizer(bool left, bool right) {
  return std::make_unique<Strip>(left, right);
}
std::unique_ptr<Normalizer> MakeByteLevelNormalizer() {
  return std::make_unique<ByteLevelNormalizer>();
}
std::unique_ptr<Normalizer> MakeNormalizerSequence(std::vector<std::unique_ptr<Normalizer>> parts) {
  return std::make_unique<NormalizerSequence>(std::move(parts));
}

}  // namespace quantmill
