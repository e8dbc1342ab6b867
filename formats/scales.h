// Scales as formats store them. Private to formats/.
#ifndef QUANTMILL_FORMATS_SCALES_H_
#define QUANTMILL_FORMATS_SCALES_H_

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/dtype.h"
#include "kernels/core/scheme.h"

namespace quantmill {

enum class ScaleSign : uint8_t { kPositive, kEither };

// Below zero is a mirrored grid, which only symmetric integers have a use for: the others' numbers
// are as many on both sides of zero, and servers that fuse layers take the largest of their scales.
ScaleSign SignOf(const QuantScheme& scheme);

// The bytes of `scales` as `dtype` (F32, F16, BF16, F8_E4M3, F8_E8M0). Check fails unless every
// scale is good (FindBadScale) and exactly representable: codes were chosen against the stored
// value.
std::vector<std::byte> EncodeScales(std::span<const float> scales, DType dtype, ScaleSign sign);

// `bytes`: whole elements of `dtype`, of any alignment. Exact.
std::vector<float> DecodeScales(std::span<const std::byte> bytes, DType dtype);

// "scale 17 is NaN" for the first scale that is zero, not finite, or of the wrong sign. `first`:
// the number of scales[0].
std::optional<std::string> FindBadScale(std::span<const float> scales, ScaleSign sign,
                                        int64_t first = 0);

// One scale for each row block and group, [blocks, groups], from [out, groups]. Check fails if rows
// of one block differ.
std::vector<float> OneScaleOfRowBlock(const QuantizedLinear& linear);

// The inverse: scales [ceil(out / row_block), groups] repeated to [out, groups].
std::vector<float> RepeatScalesOfRowBlocks(const std::vector<float>& scales, int64_t out,
                                           int64_t groups, int64_t row_block);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_SCALES_H_
