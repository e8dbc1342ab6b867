#include "formats/tokenizer/unicode.h"

#include <utf8proc.h>

#include "formats/tokenizer/regex.h"
#include "formats/tokenizer/unicode_versions.h"

namespace quantmill {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// How far a UTF-8 sequence at the start of a text goes.
struct Scan {
  size_t length;  // well-formed prefix, at least 1
  bool complete;  // a whole code point
  bool cut;       // ended by the end of the text, not by a wrong byte
};

// Bounds of the second byte depend on the lead (no overlong forms, surrogates, > U+10FFFF).
bool SecondByteOk(unsigned char lead, unsigned char second) {
  if (lead == 0xE0) return second >= 0xA0 && second <= 0xBF;
  if (lead == 0xED) return second >= 0x80 && second <= 0x9F;
  if (lead == 0xF0) return second >= 0x90 && second <= 0xBF;
  if (lead == 0xF4) return second >= 0x80 && second <= 0x8F;
  return second >= 0x80 && second <= 0xBF;
}

Scan ScanSequence(std::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t want = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  for (size_t i = 1; i < want; ++i) {
    if (i == text.size()) return {i, false, true};
    const bool ok = i == 1 ? SecondByteOk(lead, byte(1)) : (byte(i) & 0xC0) == 0x80;
    if (!ok) return {i, false, false};
  }
  return {want, true, false};
}

}  // namespace

std::optional<size_t> FindInvalidUtf8(std::string_view text) {
  size_t pos = 0;
  while (pos < text.size()) {
    if (static_cast<unsigned char>(text[pos]) < 0x80) {
      ++pos;
      continue;
    }
    const Scan scan = ScanSequence(text.substr(pos));
    if (!scan.complete) return pos;
    pos += scan.length;
  }
  return std::nullopt;
}

char32_t NextCodePoint(std::string_view text, size_t& pos) {
  const size_t length = Utf8Length(text[pos]);
  const auto byte = [&](size_t i) {
    return static_cast<char32_t>(static_cast<unsigned char>(text[pos + i]));
  };
  char32_t code_point = byte(0);
  if (length == 2) code_point &= 0x1F;
  if (length == 3) code_point &= 0x0F;
  if (length == 4) code_point &= 0x07;
  for (size_t i = 1; i < length; ++i) code_point = (code_point << 6) | (byte(i) & 0x3F);
  pos += length;
  return code_point;
}

char32_t PreviousCodePoint(std::string_view text, size_t end, size_t& start) {
  start = end - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
  size_t pos = start;
  return NextCodePoint(text, pos);
}

void AppendUtf8(char32_t code_point, std::string& out) {
  const auto put = [&out](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | (code_point >> 18));
    put(0x80 | ((code_point >> 12) & 0x3F));
    put(0x80 | ((code_point >> 6) & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

size_t CountCodePoints(std::string_view text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return count;
}

bool IsWhiteSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsNumeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_NO || InRanges(kNumericSinceUnicode16, c);
}

bool IsPunctuation(char32_t c) {
  if (c < 0x80) {
    return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
           (c >= 0x7B && c <= 0x7E);
  }
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  const bool now = category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
  return now ? !InRanges(kPunctuationAfterUnicode7, c) : InRanges(kPunctuationUntilUnicode7, c);
}

bool IsWordCharacter(char32_t c) {
  // utf8proc has no Alphabetic property, PCRE2 has.
  static const Regex kWord =
      Regex::FromPcre("[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]", "word character");
  if (InRanges(kWordSinceUnicode15, c)) return true;
  std::string text;
  AppendUtf8(c, text);
  Regex::Matcher matcher(kWord);
  matcher.SetText(text);
  return matcher.Search(0).has_value();
}

void Utf8Repairer::Feed(std::string_view bytes, std::string& out) {
  std::string joined;
  if (!pending_.empty()) {
    joined = pending_ + std::string(bytes);
    bytes = joined;
    pending_.clear();
  }
  size_t pos = 0;
  while (pos < bytes.size()) {
    const Scan scan = ScanSequence(bytes.substr(pos));
    if (scan.cut) break;
    out += scan.complete ? bytes.substr(pos, scan.length) : kReplacement;
    pos += scan.length;
  }
  pending_ = std::string(bytes.substr(pos));
}

void Utf8Repairer::Finish(std::string& out) {
  if (!pending_.empty()) out += kReplacement;
  pending_.clear();
}

const ByteAlphabet& ByteAlphabet::Get() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

ByteAlphabet::ByteAlphabet() {
  to_byte_.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
    const char32_t code_point = printable ? static_cast<char32_t>(byte) : next++;
    AppendUtf8(code_point, to_text_[static_cast<size_t>(byte)]);
    to_byte_[code_point] = static_cast<int16_t>(byte);
  }
}

void ByteAlphabet::Encode(std::string_view bytes, std::string& out) const {
  for (const char c : bytes) out += to_text_[static_cast<unsigned char>(c)];
}

std::optional<std::string> ByteAlphabet::Decode(std::string_view text) const {
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t code_point = NextCodePoint(text, pos);
    if (code_point >= to_byte_.size() || to_byte_[code_point] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(to_byte_[code_point]));
  }
  return bytes;
}

}  // namespace quantmill
