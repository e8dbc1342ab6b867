// Code points and UTF-8, as the tokenizer components need them.
#ifndef QUANTMILL_FORMATS_TOKENIZER_UNICODE_H_
#define QUANTMILL_FORMATS_TOKENIZER_UNICODE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quantmill {

// Byte offset of the first ill-formed UTF-8 sequence of `text` (overlong forms, surrogates and
// values above U+10FFFF are ill-formed), or nullopt when all of it is well-formed.
std::optional<size_t> FindInvalidUtf8(std::string_view text);

// Length in bytes of the sequence that starts with `lead`. `lead` must start a well-formed one.
inline size_t Utf8Length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The code point at `pos`, which is moved past it. `text` is well-formed and pos < text.size().
char32_t NextCodePoint(std::string_view text, size_t& pos);

// The code point that ends at `end` (0 < end <= text.size()); `start` receives its first byte.
char32_t PreviousCodePoint(std::string_view text, size_t end, size_t& start);

// Appends `code_point` (a scalar value) to `out`.
void AppendUtf8(char32_t code_point, std::string& out);

// Number of code points of the well-formed `text`.
size_t CountCodePoints(std::string_view text);

// Unicode property White_Space (what `\s` means in the pre-tokenizer patterns).
bool IsWhiteSpace(char32_t code_point);

// General category Nd, Nl or No.
bool IsNumeric(char32_t code_point);

// ASCII punctuation and symbols, or general category P*.
bool IsPunctuation(char32_t code_point);

// Alphabetic, mark, decimal digit, connector punctuation or join control: `\w` of Unicode TS 18.
bool IsWordCharacter(char32_t code_point);

// Turns bytes into well-formed UTF-8 one piece at a time: every maximal ill-formed part becomes one
// U+FFFD (Unicode 15, section 3.9, "maximal subparts"). Not thread-safe.
class Utf8Repairer {
 public:
  // Appends to `out` everything that `bytes` completes; an unfinished sequence waits.
  void Feed(std::string_view bytes, std::string& out);
  // Ends the input: an unfinished sequence becomes U+FFFD. Ready for new input afterwards.
  void Finish(std::string& out);

 private:
  std::string pending_;
};

// GPT-2's byte alphabet: printable bytes stand for themselves, the other 68 for U+0100 + n.
class ByteAlphabet {
 public:
  // The only instance. Thread-safe.
  static const ByteAlphabet& Get();
  // Appends the code points that stand for `bytes` to `out`, as UTF-8.
  void Encode(std::string_view bytes, std::string& out) const;
  // The bytes that `text` (well-formed) stands for; nullopt when it holds any other code point.
  std::optional<std::string> Decode(std::string_view text) const;

 private:
  ByteAlphabet();
  std::array<std::string, 256> to_text_;
  std::array<int16_t, 512> to_byte_;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_UNICODE_H_
