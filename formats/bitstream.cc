#include "formats/bitstream.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

static_assert(std::endian::native == std::endian::little, "the formats are little-endian");

// Eight byte-wide fields of `bits` bits -> their 8 * bits bits, lowest field first: neighbours are
// joined in three rounds, all lanes at once.
constexpr uint64_t Compress(uint64_t fields, int bits) {
  const int gap = 8 - bits;
  uint64_t x = fields;
  x = (x & 0x00FF00FF00FF00FFu) | ((x & 0xFF00FF00FF00FF00u) >> gap);
  x = (x & 0x0000FFFF0000FFFFu) | ((x & 0xFFFF0000FFFF0000u) >> (2 * gap));
  return (x & 0x00000000FFFFFFFFu) | ((x & 0xFFFFFFFF00000000u) >> (4 * gap));
}

// The inverse; bits of `packed` above 8 * bits must be zero.
constexpr uint64_t Expand(uint64_t packed, int bits) {
  const int gap = 8 - bits;
  const uint64_t four = (uint64_t{1} << (4 * bits)) - 1;
  const uint64_t two = ((uint64_t{1} << (2 * bits)) - 1) * 0x0000000100000001u;
  const uint64_t one = ((uint64_t{1} << bits) - 1) * 0x0001000100010001u;
  uint64_t x = packed;
  x = (x & four) | ((x & (four << (4 * bits))) << (4 * gap));
  x = (x & two) | ((x & (two << (2 * bits))) << (2 * gap));
  return (x & one) | ((x & (one << bits)) << gap);
}

// Codes -8, -7, -1, 0, 1, 2, 6, 7 (fields 0, 1, 7, 8, 9, A, E, F) make the word of the format's
// documentation; three bits per field make three whole bytes.
static_assert(Compress(0x0F0E0A0908070100u, 4) == 0xFEA98710u);
static_assert(Expand(0xFEA98710u, 4) == 0x0F0E0A0908070100u);
static_assert(Compress(0x0706050403020100u, 3) == 0xFAC688u);
static_assert(Expand(0xFAC688u, 3) == 0x0706050403020100u);
static_assert(Compress(0x0123456789ABCDEFu, 8) == 0x0123456789ABCDEFu);

// Codes are turned into fields in blocks that stay in the first-level cache, by a loop of bytes
// that compilers vectorize; the joining then works on whole words.
constexpr int64_t kBlock = 512;  // a multiple of 8

template <int kBits>
void PackRow(const int8_t* codes, int64_t cols, std::byte* out, uint8_t& overflow) {
  constexpr uint8_t kBias = 1u << (kBits - 1);
  std::array<uint8_t, kBlock> fields;
  for (int64_t begin = 0; begin < cols; begin += kBlock) {
    const int64_t count = std::min(kBlock, cols - begin);
    uint8_t seen = 0;
    for (int64_t i = 0; i < count; ++i) {
      fields[static_cast<size_t>(i)] = static_cast<uint8_t>(codes[begin + i] + kBias);
      seen |= fields[static_cast<size_t>(i)];
    }
    overflow |= static_cast<uint8_t>(seen >> (kBits - 1) >> 1);
    for (int64_t i = 0; i < count / 8; ++i) {
      uint64_t eight;
      std::memcpy(&eight, fields.data() + i * 8, 8);
      eight = Compress(eight, kBits);
      std::memcpy(out, &eight, kBits);
      out += kBits;
    }
    if (const int64_t rest = count % 8; rest != 0) {
      uint64_t eight = 0;
      std::memcpy(&eight, fields.data() + count - rest, static_cast<size_t>(rest));
      eight = Compress(eight, kBits);
      std::memcpy(out, &eight, static_cast<size_t>((rest * kBits + 7) / 8));
    }
  }
}

template <int kBits>
void UnpackRow(const std::byte* in, int64_t cols, int8_t* codes) {
  constexpr uint8_t kBias = 1u << (kBits - 1);
  auto* fields = reinterpret_cast<uint8_t*>(codes);
  for (int64_t begin = 0; begin < cols; begin += kBlock) {
    const int64_t count = std::min(kBlock, cols - begin);
    uint8_t* block = fields + begin;
    for (int64_t i = 0; i < count / 8; ++i) {
      uint64_t eight = 0;
      std::memcpy(&eight, in, kBits);
      eight = Expand(eight, kBits);
      std::memcpy(block + i * 8, &eight, 8);
      in += kBits;
    }
    if (const int64_t rest = count % 8; rest != 0) {
      uint64_t eight = 0;
      std::memcpy(&eight, in, static_cast<size_t>((rest * kBits + 7) / 8));
      // Pad bits, if any are set, land in fields past `rest`, which are not stored.
      eight = Expand(eight, kBits);
      std::memcpy(block + count - rest, &eight, static_cast<size_t>(rest));
    }
    for (int64_t i = 0; i < count; ++i) block[i] = static_cast<uint8_t>(block[i] - kBias);
  }
}

using PackRowFunction = void (*)(const int8_t*, int64_t, std::byte*, uint8_t&);
using UnpackRowFunction = void (*)(const std::byte*, int64_t, int8_t*);
constexpr std::array<PackRowFunction, 7> kPackRow = {PackRow<2>, PackRow<3>, PackRow<4>, PackRow<5>,
                                                     PackRow<6>, PackRow<7>, PackRow<8>};
constexpr std::array<UnpackRowFunction, 7> kUnpackRow = {UnpackRow<2>, UnpackRow<3>, UnpackRow<4>,
                                                         UnpackRow<5>, UnpackRow<6>, UnpackRow<7>,
                                                         UnpackRow<8>};

void CheckSizes(size_t codes, size_t words, int64_t rows, int64_t cols, int bits) {
  Check(bits >= 2 && bits <= 8, "codes have 2 to 8 bits");
  Check(rows >= 0 && cols >= 0 && static_cast<int64_t>(codes) == rows * cols &&
            static_cast<int64_t>(words) == rows * WordsPerRow(cols, bits),
        "sizes of codes and words disagree");
}

}  // namespace

void PackCodes(std::span<const int8_t> codes, int64_t rows, int64_t cols, int bits,
               std::span<uint32_t> words) {
  CheckSizes(codes.size(), words.size(), rows, cols, bits);
  const int64_t row_words = WordsPerRow(cols, bits);
  if (row_words == 0) return;
  const PackRowFunction pack = kPackRow[static_cast<size_t>(bits - 2)];
  uint8_t overflow = 0;
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t* row = words.data() + r * row_words;
    row[row_words - 1] = 0;  // the fields may end inside it
    pack(codes.data() + r * cols, cols, reinterpret_cast<std::byte*>(row), overflow);
  }
  // An unclamped code would have changed its neighbours.
  Check(overflow == 0, "a code is out of the range of its bits");
}

void UnpackCodes(std::span<const uint32_t> words, int64_t rows, int64_t cols, int bits,
                 std::span<int8_t> codes) {
  CheckSizes(codes.size(), words.size(), rows, cols, bits);
  const int64_t row_words = WordsPerRow(cols, bits);
  const UnpackRowFunction unpack = kUnpackRow[static_cast<size_t>(bits - 2)];
  for (int64_t r = 0; r < rows; ++r) {
    unpack(reinterpret_cast<const std::byte*>(words.data() + r * row_words), cols,
           codes.data() + r * cols);
  }
}

std::optional<int64_t> FindDirtyPadding(std::span<const uint32_t> words, int64_t rows, int64_t cols,
                                        int bits) {
  const int64_t used = cols * bits % 32;
  if (used == 0) return std::nullopt;
  const int64_t row_words = WordsPerRow(cols, bits);
  for (int64_t r = 0; r < rows; ++r) {
    if (words[static_cast<size_t>((r + 1) * row_words - 1)] >> used != 0) return r;
  }
  return std::nullopt;
}

}  // namespace quantmill
