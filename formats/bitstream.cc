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

// Fields -> bits: `count` is a multiple of 8.
template <int kBits>
void Join(const uint8_t* fields, int64_t count, std::byte* out) {
  for (int64_t i = 0; i < count; i += 8, out += kBits) {
    uint64_t eight;
    std::memcpy(&eight, fields + i, 8);
    eight = Compress(eight, kBits);
    std::memcpy(out, &eight, kBits);
  }
}
template <int kBits>
void Split(const std::byte* in, int64_t count, uint8_t* fields) {
  for (int64_t i = 0; i < count; i += 8, in += kBits) {
    uint64_t eight = 0;
    std::memcpy(&eight, in, kBits);
    eight = Expand(eight, kBits);
    std::memcpy(fields + i, &eight, 8);
  }
}

// Two fields of four bits make a byte, in loops that compilers vectorize.
template <>
void Join<4>(const uint8_t* fields, int64_t count, std::byte* out) {
  for (int64_t i = 0; i < count / 2; ++i) {
    uint16_t pair;
    std::memcpy(&pair, fields + 2 * i, 2);
    out[i] = static_cast<std::byte>(pair | pair >> 4);
  }
}
template <>
void Split<4>(const std::byte* in, int64_t count, uint8_t* fields) {
  for (int64_t i = 0; i < count / 2; ++i) {
    const auto both = static_cast<uint16_t>(in[i]);
    const auto pair = static_cast<uint16_t>((both | both << 4) & 0x0F0F);
    std::memcpy(fields + 2 * i, &pair, 2);
  }
}
template <>
void Join<8>(const uint8_t* fields, int64_t count, std::byte* out) {
  std::memcpy(out, fields, static_cast<size_t>(count));
}
template <>
void Split<8>(const std::byte* in, int64_t count, uint8_t* fields) {
  std::memcpy(fields, in, static_cast<size_t>(count));
}

// Codes are turned into fields in blocks that stay in the first-level cache, by a loop of bytes
// that compilers vectorize.
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
    const int64_t rest = count % 8;
    Join<kBits>(fields.data(), count - rest, out);
    out += (count - rest) / 8 * kBits;
    if (rest != 0) {
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
    const int64_t rest = count % 8;
    uint8_t* block = fields + begin;
    Split<kBits>(in, count - rest, block);
    in += (count - rest) / 8 * kBits;
    if (rest != 0) {
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

void CheckBits(int bits) { Check(bits >= 2 && bits <= 8, "codes have 2 to 8 bits"); }

void CheckSizes(size_t codes, size_t words, int64_t rows, int64_t cols, int bits) {
  CheckBits(bits);
  Check(rows >= 0 && cols >= 0 && static_cast<int64_t>(codes) == rows * cols &&
            static_cast<int64_t>(words) == rows * WordsPerRow(cols, bits) * kWordBytes,
        "sizes of codes and words disagree");
}

// An unclamped code would have changed its neighbours.
void CheckNoOverflow(uint8_t overflow) {
  Check(overflow == 0, "a code is out of the range of its bits");
}

// Words of columns are transposed by tiles that stay in the first-level cache: rows whose words lie
// beside each other in a few cache lines (the next words are pages away: with one line, a fifth
// more time), and codes that fill whole words for any number of bits.
constexpr int64_t kTileRows = 64;
constexpr int64_t kTileCodes = 256;
using Tile = std::array<uint32_t, kTileRows * kTileCodes / kWordBytes>;

using FourWords = uint32_t __attribute__((vector_size(16)));

// 4 x 4 words, transposed: lines of `in` and `out` are so many bytes apart, of any alignment.
void TransposeFour(const std::byte* in, size_t in_stride, std::byte* out, size_t out_stride) {
  std::array<FourWords, 4> rows;
  for (size_t i = 0; i < 4; ++i) std::memcpy(&rows[i], in + i * in_stride, sizeof(FourWords));
  const FourWords low_01 = __builtin_shufflevector(rows[0], rows[1], 0, 4, 1, 5);
  const FourWords low_23 = __builtin_shufflevector(rows[2], rows[3], 0, 4, 1, 5);
  const FourWords high_01 = __builtin_shufflevector(rows[0], rows[1], 2, 6, 3, 7);
  const FourWords high_23 = __builtin_shufflevector(rows[2], rows[3], 2, 6, 3, 7);
  rows = {__builtin_shufflevector(low_01, low_23, 0, 1, 4, 5),
          __builtin_shufflevector(low_01, low_23, 2, 3, 6, 7),
          __builtin_shufflevector(high_01, high_23, 0, 1, 4, 5),
          __builtin_shufflevector(high_01, high_23, 2, 3, 6, 7)};
  for (size_t i = 0; i < 4; ++i) std::memcpy(out + i * out_stride, &rows[i], sizeof(FourWords));
}

}  // namespace

void PackCodes(std::span<const int8_t> codes, int64_t rows, int64_t cols, int bits,
               std::span<std::byte> words) {
  CheckSizes(codes.size(), words.size(), rows, cols, bits);
  const int64_t row_bytes = WordsPerRow(cols, bits) * kWordBytes;
  if (row_bytes == 0) return;
  const PackRowFunction pack = kPackRow[static_cast<size_t>(bits - 2)];
  uint8_t overflow = 0;
  for (int64_t r = 0; r < rows; ++r) {
    std::byte* row = words.data() + r * row_bytes;
    std::memset(row + row_bytes - kWordBytes, 0, kWordBytes);  // the fields may end inside it
    pack(codes.data() + r * cols, cols, row, overflow);
  }
  CheckNoOverflow(overflow);
}

void UnpackCodes(std::span<const std::byte> words, int64_t rows, int64_t cols, int bits,
                 std::span<int8_t> codes) {
  CheckSizes(codes.size(), words.size(), rows, cols, bits);
  const int64_t row_bytes = WordsPerRow(cols, bits) * kWordBytes;
  const UnpackRowFunction unpack = kUnpackRow[static_cast<size_t>(bits - 2)];
  for (int64_t r = 0; r < rows; ++r) {
    unpack(words.data() + r * row_bytes, cols, codes.data() + r * cols);
  }
}

std::optional<int64_t> FindDirtyPadding(std::span<const std::byte> words, int64_t rows,
                                        int64_t cols, int bits) {
  const int64_t used = cols * bits % 32;
  if (used == 0) return std::nullopt;
  const int64_t row_bytes = WordsPerRow(cols, bits) * kWordBytes;
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t last;
    std::memcpy(&last, words.data() + (r + 1) * row_bytes - kWordBytes, sizeof(last));
    if (last >> used != 0) return r;
  }
  return std::nullopt;
}

void TransposeWords(const std::byte* in, size_t in_stride, int64_t rows, int64_t cols,
                    std::byte* out, size_t out_stride) {
  const auto from = [&](int64_t r, int64_t c) {
    return in + static_cast<size_t>(r) * in_stride + c * kWordBytes;
  };
  const auto to = [&](int64_t r, int64_t c) {
    return out + static_cast<size_t>(c) * out_stride + r * kWordBytes;
  };
  const auto transpose_tile = [&](int64_t row, int64_t height, int64_t col, int64_t width) {
    const int64_t fours_height = height / 4 * 4;
    const int64_t fours_width = width / 4 * 4;
    for (int64_t c = col; c < col + fours_width; c += 4) {
      for (int64_t r = row; r < row + fours_height; r += 4) {
        TransposeFour(from(r, c), in_stride, to(r, c), out_stride);
      }
    }
    for (int64_t c = col; c < col + width; ++c) {
      for (int64_t r = c < col + fours_width ? row + fours_height : row; r < row + height; ++r) {
        std::memcpy(to(r, c), from(r, c), kWordBytes);
      }
    }
  };
  // A tile reads and fills whole cache lines, few enough to stay in the first-level cache although
  // lines of a matrix may lie a multiple of a page apart.
  constexpr int64_t kLineWords = 16;
  ForEachTile(rows, cols, kLineWords, kLineWords, transpose_tile);
}

void PackColumns(std::span<const int8_t> codes, int64_t rows, int64_t cols, int bits,
                 std::byte* words, size_t stride) {
  CheckBits(bits);
  Check(static_cast<int64_t>(codes.size()) == rows * cols, "codes are [rows, cols]");
  const PackRowFunction pack = kPackRow[static_cast<size_t>(bits - 2)];
  uint8_t overflow = 0;
  const auto pack_tile = [&](int64_t row, int64_t tile_rows, int64_t col, int64_t tile_cols) {
    const int64_t row_words = WordsPerRow(tile_cols, bits);
    Tile tile;
    for (int64_t r = 0; r < tile_rows; ++r) {
      uint32_t* to = tile.data() + r * row_words;
      to[row_words - 1] = 0;
      pack(codes.data() + (row + r) * cols + col, tile_cols, reinterpret_cast<std::byte*>(to),
           overflow);
    }
    TransposeWords(reinterpret_cast<const std::byte*>(tile.data()),
                   static_cast<size_t>(row_words * kWordBytes), tile_rows, row_words,
                   words + static_cast<size_t>(col * bits / 32) * stride + row * kWordBytes,
                   stride);
  };
  ForEachTile(rows, cols, kTileRows, kTileCodes, pack_tile);
  CheckNoOverflow(overflow);
}

void UnpackColumns(const std::byte* words, size_t stride, int64_t rows, int64_t cols, int bits,
                   std::span<int8_t> codes) {
  CheckBits(bits);
  Check(static_cast<int64_t>(codes.size()) == rows * cols, "codes are [rows, cols]");
  const UnpackRowFunction unpack = kUnpackRow[static_cast<size_t>(bits - 2)];
  const auto unpack_tile = [&](int64_t row, int64_t tile_rows, int64_t col, int64_t tile_cols) {
    const int64_t row_words = WordsPerRow(tile_cols, bits);
    Tile tile;
    TransposeWords(words + static_cast<size_t>(col * bits / 32) * stride + row * kWordBytes, stride,
                   row_words, tile_rows, reinterpret_cast<std::byte*>(tile.data()),
                   static_cast<size_t>(row_words * kWordBytes));
    for (int64_t r = 0; r < tile_rows; ++r) {
      unpack(reinterpret_cast<const std::byte*>(tile.data() + r * row_words), tile_cols,
             codes.data() + (row + r) * cols + col);
    }
  };
  ForEachTile(rows, cols, kTileRows, kTileCodes, unpack_tile);
}

}  // namespace quantmill
