// The grids of ggml's blocks, for solvers that choose codes themselves: scales are chosen here,
// codes are put in afterwards.
#ifndef QUANTMILL_FORMATS_GGUF_BLOCK_GRID_H_
#define QUANTMILL_FORMATS_GGUF_BLOCK_GRID_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "formats/gguf/block_types.h"

namespace quantmill {

// Element i of a row has value offsets[g] + scales[g] * code, g = i / group, code in [-2^(bits -
// 1), 2^(bits - 1) - 1]. Without offsets they are 0.
struct BlockGrid {
  int bits = 0;
  int64_t group = 0;
  bool has_offsets = false;
};

// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and the K types; nullopt for types whose levels are not evenly
// spaced.
std::optional<BlockGrid> BlockGridOf(GgmlType type);

// Encodes a row as EncodeRow does (codec.h, whose requirements these are) and tells its grid. A
// scale of zero, which leaves nothing to choose, becomes the smallest that the block can store.
// scales: [elements / group], none of them 0. offsets: likewise, or empty where there are none.
// Grid and decoded values agree up to one rounding to float.
void EncodeGrid(GgmlType type, std::span<const float> x, std::span<const float> importance,
                std::span<std::byte> bytes, std::span<float> scales, std::span<float> offsets);

// Puts other codes on the grid of an encoded row. codes: one for each element, in range (Check).
void ReplaceCodes(GgmlType type, std::span<const int8_t> codes, std::span<std::byte> bytes);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_BLOCK_GRID_H_
