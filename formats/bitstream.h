// Signed codes of 2 to 8 bits <-> a dense little-endian bitstream, row by row.
// Field i of a row occupies bits [i * bits, (i + 1) * bits) of its words; field = code +
// 2^(bits-1).
#ifndef QUANTMILL_FORMATS_BITSTREAM_H_
#define QUANTMILL_FORMATS_BITSTREAM_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace quantmill {

inline constexpr int64_t kWordBytes = 4;
// 32-bit words of one row: a row starts at a word; the rest of its last word is zero.
constexpr int64_t WordsPerRow(int64_t cols, int bits) { return (cols * bits + 31) / 32; }

// codes: [rows, cols], each in [-2^(bits-1), 2^(bits-1) - 1] (Check). words: [rows, WordsPerRow],
// of any alignment, preallocated, no aliasing. Several GB of codes a second on one core.
void PackCodes(std::span<const int8_t> codes, int64_t rows, int64_t cols, int bits,
               std::span<std::byte> words);

// The inverse; every bit pattern is a valid code, pad bits are ignored.
void UnpackCodes(std::span<const std::byte> words, int64_t rows, int64_t cols, int bits,
                 std::span<int8_t> codes);

// First row whose pad bits are not all zero.
std::optional<int64_t> FindDirtyPadding(std::span<const std::byte> words, int64_t rows,
                                        int64_t cols, int bits);

// PackCodes with the words transposed: word w of row r at `words` + w * stride + 4 r, so that a row
// is a column of a matrix whose rows are `stride` bytes apart. As fast: no copy is made.
void PackColumns(std::span<const int8_t> codes, int64_t rows, int64_t cols, int bits,
                 std::byte* words, size_t stride);
// The inverse of it.
void UnpackColumns(const std::byte* words, size_t stride, int64_t rows, int64_t cols, int bits,
                   std::span<int8_t> codes);

// [rows, cols] words -> [cols, rows], of lines that are so many bytes apart, of any alignment; no
// aliasing. Between PackCodes and PackColumns: the words of some rows as columns, and back.
void TransposeWords(const std::byte* in, size_t in_stride, int64_t rows, int64_t cols,
                    std::byte* out, size_t out_stride);

// Calls visit(first row, rows, first column, columns) for the tiles of [rows, cols], which are
// `tile_rows` x `tile_cols` but at the ends; tiles of the same columns after each other.
template <typename Visit>
void ForEachTile(int64_t rows, int64_t cols, int64_t tile_rows, int64_t tile_cols,
                 const Visit& visit) {
  for (int64_t col = 0; col < cols; col += tile_cols) {
    for (int64_t row = 0; row < rows; row += tile_rows) {
      visit(row, std::min(tile_rows, rows - row), col, std::min(tile_cols, cols - col));
    }
  }
}

// [rows, cols] -> [cols, rows]; no aliasing. In tiles whose lines of both sides stay in the
// first-level cache.
template <typename T>
void Transpose(std::span<const T> in, int64_t rows, int64_t cols, std::span<T> out) {
  constexpr int64_t kTile = 16;
  ForEachTile(rows, cols, kTile, kTile, [&](int64_t r0, int64_t height, int64_t c0, int64_t width) {
    for (int64_t c = c0; c < c0 + width; ++c) {
      for (int64_t r = r0; r < r0 + height; ++r) {
        out[static_cast<size_t>(c * rows + r)] = in[static_cast<size_t>(r * cols + c)];
      }
    }
  });
}

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_BITSTREAM_H_
