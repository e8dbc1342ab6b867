#include "formats/scales.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Stored values of one byte, as types of their own so that templates can tell them apart.
struct E4M3 {
  uint8_t bits = 0;
};
struct E8M0 {
  uint8_t bits = 0;
};
float ToFloat(E4M3 x) { return FromE4M3(x.bits); }
float ToFloat(E8M0 x) { return FromE8M0(x.bits); }
using quantmill::ToFloat;

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

ScaleSign SignOf(const QuantScheme& scheme) {
  return scheme.code_type == CodeType::kInt && scheme.symmetric ? ScaleSign::kEither
                                                                : ScaleSign::kPositive;
}

std::vector<std::byte> EncodeScales(std::span<const float> scales, DType dtype, ScaleSign sign) {
  if (const std::optional<std::string> bad = FindBadScale(scales, sign)) Check(false, *bad);
  switch (dtype) {
    case DType::kF32:
      return EncodeAs<float>(scales, [](float x) { return x; });
    case DType::kF16:
      return EncodeAs<F16>(scales, ToF16);
    case DType::kBF16:
      return EncodeAs<BF16>(scales, ToBF16);
    case DType::kF8E4M3:
      return EncodeAs<E4M3>(scales, [](float x) { return E4M3{ToE4M3(x)}; });
    case DType::kF8E8M0:
      return EncodeAs<E8M0>(scales, [](float x) { return E8M0{ToE8M0(x)}; });
    default:
      Check(false, "scales are F32, F16, BF16, F8_E4M3 or F8_E8M0");
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
    case DType::kF8E4M3:
      return DecodeAs<E4M3>(bytes);
    case DType::kF8E8M0:
      return DecodeAs<E8M0>(bytes);
    default:
      Check(false, "scales are F32, F16, BF16, F8_E4M3 or F8_E8M0");
      return {};
  }
}

std::optional<std::string> FindBadScale(std::span<const float> scales, ScaleSign sign,
                                        int64_t first) {
  // Mostly there is none: a loop without a way out, which compilers vectorize.
  const float lowest = sign == ScaleSign::kEither ? -std::numeric_limits<float>::max() : 0.f;
  int bad = 0;
  for (const float scale : scales) {
    bad |= static_cast<int>(!(scale != 0)) | static_cast<int>(!(scale >= lowest)) |
           static_cast<int>(!(scale <= std::numeric_limits<float>::max()));
  }
  if (bad == 0) return std::nullopt;
  for (size_t i = 0; i < scales.size(); ++i) {
    const bool sign_fits = scales[i] > 0 || (sign == ScaleSign::kEither && scales[i] < 0);
    if (sign_fits && std::isfinite(scales[i])) continue;
    const std::string kind = std::isnan(scales[i])   ? "NaN"
                             : std::isinf(scales[i]) ? "infinite"
                             : scales[i] == 0        ? "zero"
                                                     : "negative";
    return "scale " + std::to_string(first + static_cast<int64_t>(i)) + " is " + kind;
  }
  return std::nullopt;
}

std::vector<float> OneScaleOfRowBlock(const QuantizedLinear& linear) {
  const int64_t groups = linear.groups();
  const int64_t block = linear.scheme.RowBlockFor(linear.out);
  std::vector<float> scales;
  for (int64_t first = 0; first < linear.out; first += block) {
    const auto begin = linear.scales.begin() + first * groups;
    scales.insert(scales.end(), begin, begin + groups);
    for (int64_t row = first + 1; row < std::min(linear.out, first + block); ++row) {
      Check(std::equal(begin, begin + groups, linear.scales.begin() + row * groups),
            "rows of one row block have different scales");
    }
  }
  return scales;
}

std::vector<float> RepeatScalesOfRowBlocks(const std::vector<float>& scales, int64_t out,
                                           int64_t groups, int64_t row_block) {
  std::vector<float> repeated;
  repeated.reserve(static_cast<size_t>(out * groups));
  for (int64_t row = 0; row < out; ++row) {
    const auto begin = scales.begin() + row / row_block * groups;
    repeated.insert(repeated.end(), begin, begin + groups);
  }
  return repeated;
}

}  // namespace quantmill
