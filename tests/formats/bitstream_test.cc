#include "formats/bitstream.h"

#include <cstring>

#include "formats/safetensors.h"
#include "tests/formats/format_test_util.h"
#include "tests/support/random.h"

namespace quantmill::test {
namespace {

using testing::ElementsAre;

std::vector<uint32_t> Pack(const std::vector<int8_t>& codes, int64_t rows, int64_t cols, int bits) {
  // Garbage where the result goes: every bit must be written.
  std::vector<uint32_t> words(static_cast<size_t>(rows * WordsPerRow(cols, bits)), 0xDEADBEEFu);
  PackCodes(codes, rows, cols, bits, std::as_writable_bytes(std::span(words)));
  return words;
}

// One bit at a time: what the layout means.
std::vector<uint32_t> PackReference(const std::vector<int8_t>& codes, int64_t rows, int64_t cols,
                                    int bits) {
  const int64_t row_words = WordsPerRow(cols, bits);
  std::vector<uint32_t> words(static_cast<size_t>(rows * row_words), 0);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < cols * bits; ++i) {
      const int field = codes[static_cast<size_t>(r * cols + i / bits)] + (1 << (bits - 1));
      const auto bit = static_cast<uint32_t>((field >> (i % bits)) & 1);
      words[static_cast<size_t>(r * row_words + i / 32)] |= bit << (i % 32);
    }
  }
  return words;
}

TEST(PackCodes, GoldenWords) {
  EXPECT_THAT(Pack({-8, -7, -1, 0, 1, 2, 6, 7}, 1, 8, 4), ElementsAre(0xFEA98710u));
  EXPECT_THAT(Pack({-128, -1, 0, 127}, 1, 4, 8), ElementsAre(0xFF807F00u));
  std::vector<int8_t> codes(32);
  for (int i = 0; i < 32; ++i) codes[static_cast<size_t>(i)] = static_cast<int8_t>(i % 8 - 4);
  EXPECT_THAT(Pack(codes, 1, 32, 3), ElementsAre(0x88FAC688u, 0xC688FAC6u, 0xFAC688FAu));
}

TEST(PackCodes, EqualsReferenceAndRoundTrips) {
  Random random(2);
  for (int bits = 2; bits <= 8; ++bits) {
    for (const int64_t cols : {0, 1, 7, 8, 9, 31, 32, 33, 63, 100, 127, 511, 512, 513, 520, 1031}) {
      for (const int64_t rows : {0, 1, 3}) {
        std::vector<int8_t> codes(static_cast<size_t>(rows * cols));
        for (int8_t& code : codes) {
          code = static_cast<int8_t>(random.Int(-(1 << (bits - 1)), (1 << (bits - 1)) - 1));
        }
        const std::vector<uint32_t> words = Pack(codes, rows, cols, bits);
        ASSERT_EQ(words, PackReference(codes, rows, cols, bits)) << bits << " " << cols;
        const auto bytes = std::as_bytes(std::span(words));
        EXPECT_FALSE(FindDirtyPadding(bytes, rows, cols, bits));
        std::vector<int8_t> back(codes.size());
        UnpackCodes(bytes, rows, cols, bits, back);
        ASSERT_EQ(back, codes) << bits << " " << cols;
      }
    }
  }
}

// Columns of a wider matrix at an odd address, whose other bytes stay as they were.
TEST(PackColumns, AreTheTransposedWords) {
  Random random(3);
  for (int bits = 2; bits <= 8; ++bits) {
    for (const auto& [rows, cols] : std::vector<std::pair<int64_t, int64_t>>{
             {0, 8}, {1, 1}, {1, 300}, {15, 255}, {16, 256}, {17, 257}, {40, 544}}) {
      std::vector<int8_t> codes(static_cast<size_t>(rows * cols));
      for (int8_t& code : codes) {
        code = static_cast<int8_t>(random.Int(-(1 << (bits - 1)), (1 << (bits - 1)) - 1));
      }
      const int64_t row_words = WordsPerRow(cols, bits);
      std::vector<uint32_t> want(static_cast<size_t>(rows * row_words));
      Transpose<uint32_t>(PackReference(codes, rows, cols, bits), rows, row_words, want);
      const auto line = static_cast<size_t>(4 * rows);
      const size_t stride = line + 8;
      std::vector<std::byte> lines(3 + static_cast<size_t>(row_words) * stride, std::byte{0xA5});
      PackColumns(codes, rows, cols, bits, lines.data() + 3, stride);
      for (size_t w = 0; w < static_cast<size_t>(row_words); ++w) {
        const std::byte* at = lines.data() + 3 + w * stride;
        ASSERT_EQ(std::memcmp(at, want.data() + w * static_cast<size_t>(rows), line), 0);
        ASSERT_EQ(at[line], std::byte{0xA5});
      }
      std::vector<int8_t> back(codes.size());
      UnpackColumns(lines.data() + 3, stride, rows, cols, bits, back);
      ASSERT_EQ(back, codes) << bits << " " << rows << " " << cols;
    }
  }
}

// Lines at odd addresses, with gaps that stay as they were.
TEST(TransposeWords, EqualsTransposeOnAnyShape) {
  Random random(4);
  for (const int64_t rows : {0, 1, 3, 4, 5, 15, 16, 17, 35, 64}) {
    for (const int64_t cols : {0, 1, 2, 4, 7, 16, 18, 33, 48}) {
      std::vector<uint32_t> words(static_cast<size_t>(rows * cols));
      for (uint32_t& word : words) word = static_cast<uint32_t>(random.Int(0, 1 << 30));
      std::vector<uint32_t> want(words.size());
      Transpose<uint32_t>(words, rows, cols, want);
      const auto in_line = static_cast<size_t>(4 * cols);
      const auto out_line = static_cast<size_t>(4 * rows);
      std::vector<std::byte> in(1 + static_cast<size_t>(rows) * (in_line + 5));
      std::vector<std::byte> out(3 + static_cast<size_t>(cols) * (out_line + 9), std::byte{0xA5});
      for (size_t r = 0; r < static_cast<size_t>(rows) && in_line > 0; ++r) {
        std::memcpy(in.data() + 1 + r * (in_line + 5), words.data() + r * in_line / 4, in_line);
      }
      TransposeWords(in.data() + 1, in_line + 5, rows, cols, out.data() + 3, out_line + 9);
      for (size_t c = 0; c < static_cast<size_t>(cols); ++c) {
        const std::byte* line = out.data() + 3 + c * (out_line + 9);
        ASSERT_TRUE(
            std::equal(line, line + out_line, std::as_bytes(std::span(want)).data() + c * out_line))
            << rows << " x " << cols;
        ASSERT_EQ(line[out_line], std::byte{0xA5});
      }
    }
  }
}

TEST(UnpackCodes, IgnoresPaddingAndFindsIt) {
  std::vector<uint32_t> words = {0x000007F8u, 0xFFFFFFFFu};  // one code of 3 bits per row
  const auto bytes = std::as_bytes(std::span(words));
  EXPECT_EQ(FindDirtyPadding(bytes, 2, 1, 3), 0);
  words[0] = 0x00000002u;
  EXPECT_EQ(FindDirtyPadding(bytes, 2, 1, 3), 1);
  std::vector<int8_t> codes(2);
  UnpackCodes(bytes, 2, 1, 3, codes);
  EXPECT_THAT(codes, ElementsAre(-2, 3));
}

TEST(PackCodesDeathTest, RefusesCodesOutOfRange) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(Pack({8}, 1, 1, 4), "out of the range");
  EXPECT_DEATH(Pack({-9, 0, 0, 0, 0, 0, 0, 0}, 1, 8, 4), "out of the range");
  EXPECT_DEATH(Pack({0}, 1, 1, 9), "2 to 8 bits");
  EXPECT_DEATH(Pack({0}, 1, 2, 4), "disagree");
}

template <typename T>
std::vector<T> Load(const SafetensorsFile& file, const std::string& name) {
  const auto bytes = file.Bytes(*file.Find(name));
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

// golden/packing.safetensors was packed by the compressed-tensors library (make_golden.py).
TEST(PackCodes, SameWordsAsTheLibrary) {
  const SafetensorsFile file = SafetensorsFile::Open("tests/formats/golden/packing.safetensors");
  for (int bits = 2; bits <= 8; ++bits) {
    const std::string b = std::to_string(bits);
    EXPECT_EQ(Pack(Load<int8_t>(file, "codes" + b), 5, 37, bits),
              Load<uint32_t>(file, "packed" + b));
    const auto zeros = Load<int8_t>(file, "zeros" + b);
    std::vector<int8_t> by_group(zeros.size());
    Transpose<int8_t>(zeros, 37, 3, by_group);
    const std::vector<uint32_t> words = Pack(by_group, 3, 37, bits);
    std::vector<uint32_t> along_outputs(words.size());
    Transpose<uint32_t>(words, 3, WordsPerRow(37, bits), along_outputs);
    EXPECT_EQ(along_outputs, Load<uint32_t>(file, "packed_zeros" + b));
  }
}

}  // namespace
}  // namespace quantmill::test
