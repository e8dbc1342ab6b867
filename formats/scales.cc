#include "formats/scales.h"

#include <cmath>
#include <cstring>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

template <typename T>
std::vector<float> DecodeAs(std::span<const std::byte> bytes) {
  std::vector<float> scales(bytes.size() / sizeof(T));
  for (size_t i = 0; i < scales.size(); ++i) {
    T stored;
    std::memcpy(&stored, bytes.data() + i * sizeof(T), sizeof(T));
    scales[i] = ToFloat(stored);
  }
  return scales;
}

template <typename T, typename Convert>
std::vector<std::byte> EncodeAs(std::span<const float> scales, Convert convert) {
  std::vector<std::byte> bytes(scales.size() * sizeof(T));
  bool exact = true;
  for (size_t i = 0; i < scales.size(); ++i) {
    const T stored = convert(scales[i]);
    exact &= ToFloat(stored) == scales[i];
    std::memcpy(bytes.data() + i * sizeof(T), &stored, sizeof(T));
  }
  Check(exact, "a scale was not rounded to its stored type before codes were chosen");
  return bytes;
}

}  // namespace

std::vector<std::byte> EncodeScales(std::span<const float> scales, DType dtype) {
  if (const std::optional<std::string> bad = FindBadScale(scales)) Check(false, *bad);
  switch (dtype) {
    case DType::kF32:
      return EncodeAs<float>(scales, [](float x) { return x; });
    case DType::kF16:
      return EncodeAs<F16>(scales, ToF16);
    case DType::kBF16:
      return EncodeAs<BF16>(scales, ToBF16);
    default:
      Check(false, "scales are F32, F16 or BF16");
      return {};
  }
}

std::vector<float> DecodeScales(std::span<const std::byte> bytes, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return DecodeAs<float>(bytes);
    case DType::kF16:
      return DecodeAs<F16>(bytes);
    case DType::kBF16:
      return DecodeAs<BF16>(bytes);
    default:
      Check(false, "scales are F32, F16 or BF16");
      return {};
  }
}

std::optional<std::string> FindBadScale(std::span<const float> scales) {
  for (size_t i = 0; i < scales.size(); ++i) {
    if (scales[i] > 0 && std::isfinite(scales[i])) continue;
    const std::string kind = std::isnan(scales[i])   ? "NaN"
                             : std::isinf(scales[i]) ? "infinite"
                             : scales[i] == 0        ? "zero"
                                                     : "negative";
    return "scale " + std::to_string(i) + " is " + kind;
  }
  return std::nullopt;
}

}  // namespace quantmill
