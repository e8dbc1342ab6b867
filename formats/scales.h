// Scales as formats store them. Private to formats/.
#ifndef QUANTMILL_FORMATS_SCALES_H_
#define QUANTMILL_FORMATS_SCALES_H_

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/dtype.h"

namespace quantmill {

// The bytes of `scales` as `dtype` (F32, F16, BF16). Check fails unless every scale is finite,
// above zero and exactly representable: codes were chosen against the stored value.
std::vector<std::byte> EncodeScales(std::span<const float> scales, DType dtype);

// `bytes`: whole elements of `dtype`, of any alignment. Exact.
std::vector<float> DecodeScales(std::span<const std::byte> bytes, DType dtype);

// "scale 17 is NaN" for the first scale that is not finite and above zero.
std::optional<std::string> FindBadScale(std::span<const float> scales);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_SCALES_H_
