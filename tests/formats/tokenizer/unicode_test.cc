// Unicode properties and normalization forms against the reference library, for every code point.
#include "formats/tokenizer/unicode.h"

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <string>
#include <vector>

#include "formats/tokenizer/normalizer.h"
#include "formats/tokenizer/regex.h"
#include "golden.h"

namespace quantmill {
namespace {

constexpr char32_t kLimit = 0x110000;

bool IsSurrogate(char32_t c) { return c >= 0xD800 && c < 0xE000; }

std::string Utf8(char32_t c) {
  std::string text;
  AppendUtf8(c, text);
  return text;
}

uint32_t Crc32(const std::string& bytes) {
  static const std::array<uint32_t, 256> kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t value = i;
      for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1) * 0xEDB88320u);
      table[i] = value;
    }
    return table;
  }();
  uint32_t crc = 0xFFFFFFFFu;
  for (const char c : bytes) crc = (crc >> 8) ^ kTable[(crc ^ static_cast<unsigned char>(c)) & 255];
  return ~crc;
}

// Compares a predicate with a flat list of first, last, first, last, ...
void ExpectRanges(const nlohmann::json& golden, const std::function<bool(char32_t)>& holds) {
  const auto bounds = golden.get<std::vector<uint32_t>>();
  size_t range = 0;
  int shown = 0;
  for (char32_t c = 0; c < kLimit; ++c) {
    while (range < bounds.size() && bounds[range + 1] < c) range += 2;
    const bool want = range < bounds.size() && c >= bounds[range];
    if (IsSurrogate(c) || holds(c) == want) continue;
    ADD_FAILURE() << "U+" << std::hex << static_cast<uint32_t>(c) << " want " << want;
    if (++shown == 5) return;
  }
}

TEST(Unicode, PropertiesAreThoseOfTheReferenceLibrary) {
  const nlohmann::json golden = ReadGolden("unicode.json");
  ExpectRanges(golden["numeric"], IsNumeric);
  ExpectRanges(golden["punctuation"], IsPunctuation);
  ExpectRanges(golden["white_space"], IsWhiteSpace);
  ExpectRanges(golden["word"], IsWordCharacter);
}

TEST(Unicode, RegexClassesAreThoseOfTheReferenceLibrary) {
  const nlohmann::json golden = ReadGolden("unicode.json");
  for (const auto& [pattern, ranges] : golden["classes"].items()) {
    SCOPED_TRACE(pattern);
    const Regex regex = Regex::FromPattern(pattern, "test");
    Regex::Matcher matcher(regex);
    ExpectRanges(ranges, [&](char32_t c) {
      const std::string text = Utf8(c);
      matcher.SetText(text);
      return matcher.Search(0).has_value();
    });
  }
}

TEST(Unicode, LowercaseIsThatOfTheReferenceLibrary) {
  std::string all;
  for (char32_t c = 0; c < kLimit; ++c) {
    if (!IsSurrogate(c)) AppendUtf8(c, all);
  }
  MakeLowercase()->Apply(all);
  EXPECT_EQ(Crc32(all), ReadGolden("unicode.json")["lower"].get<uint32_t>());
}

TEST(Unicode, NormalizationFormsAreThoseOfTheReferenceLibrary) {
  const nlohmann::json golden = ReadGolden("unicode.json");
  const std::vector<std::pair<const char*, UnicodeForm>> forms = {{"NFC", UnicodeForm::kNfc},
                                                                  {"NFD", UnicodeForm::kNfd},
                                                                  {"NFKC", UnicodeForm::kNfkc},
                                                                  {"NFKD", UnicodeForm::kNfkd}};
  for (const auto& [name, form] : forms) {
    const auto normalizer = MakeUnicodeNormalizer(form);
    for (size_t block = 0; block < golden["blocks"].size(); ++block) {
      const auto first = golden["blocks"][block].get<uint32_t>();
      std::string all;
      for (char32_t c = first; c < first + 0x1000; ++c) {
        if (IsSurrogate(c)) continue;
        const std::string text = Utf8(c);
        for (std::string part : {text, "x\u0315" + text + "y", "x" + text + "\u0334y"}) {
          normalizer->Apply(part);
          if (!all.empty()) all += "\n";
          all += part;
        }
      }
      EXPECT_EQ(Crc32(all), golden["forms"][name][block].get<uint32_t>())
          << name << " from U+" << std::hex << first;
    }
  }
}

TEST(Unicode, FindsTheFirstIllFormedByte) {
  EXPECT_FALSE(FindInvalidUtf8(""));
  EXPECT_FALSE(FindInvalidUtf8("a\u00e9\u3042\U0001F642"));
  EXPECT_EQ(FindInvalidUtf8("ab\x80"), 2u);            // a continuation alone
  EXPECT_EQ(FindInvalidUtf8("\xC0\x80"), 0u);          // overlong
  EXPECT_EQ(FindInvalidUtf8("a\xE0\x9F\xBF"), 1u);     // overlong
  EXPECT_EQ(FindInvalidUtf8("\xED\xA0\x80"), 0u);      // surrogate
  EXPECT_EQ(FindInvalidUtf8("\xF4\x90\x80\x80"), 0u);  // above U+10FFFF
  EXPECT_EQ(FindInvalidUtf8("abc\xE3\x81"), 3u);       // cut
}

TEST(Unicode, RepairsEachMaximalIllFormedPartOnce) {
  const auto repair = [](std::string_view bytes, size_t step) {
    Utf8Repairer repairer;
    std::string out;
    for (size_t i = 0; i < bytes.size(); i += step) repairer.Feed(bytes.substr(i, step), out);
    repairer.Finish(out);
    return out;
  };
  const std::string r = "\uFFFD";
  for (size_t step : {size_t{1}, size_t{2}, size_t{100}}) {
    EXPECT_EQ(repair("a\U0001F642b", step), "a\U0001F642b");
    EXPECT_EQ(repair("\xE3\x81", step), r);
    EXPECT_EQ(repair("\xE3\x81"
                     "a",
                     step),
              r + "a");
    EXPECT_EQ(repair("\xF0\x9F\x99"
                     "a\x80",
                     step),
              r + "a" + r);
    EXPECT_EQ(repair("\xC0\xAF\xE0\x80\x80", step), r + r + r + r + r);
  }
}

}  // namespace
}  // namespace quantmill
