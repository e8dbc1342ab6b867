// Rows of floats <-> the bytes of a GGUF tensor.
#ifndef QUANTMILL_FORMATS_GGUF_CODEC_H_
#define QUANTMILL_FORMATS_GGUF_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "formats/gguf/block_types.h"

namespace quantmill {

// F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL, MXFP4. What
// is decoded is also encoded.
bool HasCodec(GgmlType type);

// One row. bytes: RowBytes(type, out.size()) of them; a row that does not fill whole blocks, and a
// type without a codec, are the caller's errors (Check). Every sequence of bytes decodes; the
// values are, bit for bit, those of ggml's dequantize_row_* (infinite or NaN where the file's
// scales are).
void DecodeRow(GgmlType type, std::span<const std::byte> bytes, std::span<float> out);

// One row, so that the sum over i of importance[i] * (x[i] - decoded[i])^2 is small: scales are
// searched for, rounded as they are stored, and every code is then the nearest. importance: one
// weight >= 0 for each element, or empty for equal ones. Only ratios of weights in one block
// matter; a block whose weights are all zero counts them as equal, an element of weight zero beside
// others may come out anywhere in the block's range. F32, F16 and BF16 are rounded to nearest, to
// infinity above the type's range. x and importance must be finite, weights not negative (Check).
// Blocks are independent of each other; the same input gives the same bytes on every machine.
// Values too large for a type's F16 scales come out as its largest.
void EncodeRow(GgmlType type, std::span<const float> x, std::span<const float> importance,
               std::span<std::byte> bytes);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_CODEC_H_
