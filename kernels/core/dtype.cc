#include "kernels/core/dtype.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/error.h"

namespace quantmill {

std::string_view NameOf(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return "F64";
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kF8E4M3:
      return "F8_E4M3";
    case DType::kF8E8M0:
      return "F8_E8M0";
    case DType::kI64:
      return "I64";
    case DType::kI32:
      return "I32";
    case DType::kI16:
      return "I16";
    case DType::kI8:
      return "I8";
    case DType::kU8:
      return "U8";
    case DType::kBool:
      return "BOOL";
  }
  return "?";
}

float FromE4M3(uint8_t bits) {
  const int magnitude = bits & 0x7F;
  const float sign = (bits & 0x80) != 0 ? -1.0f : 1.0f;
  if (magnitude == 0x7F) return std::numeric_limits<float>::quiet_NaN();
  if (magnitude < 8) return sign * static_cast<float>(magnitude) * 0x1p-9f;
  return sign * std::ldexp(static_cast<float>(8 + (magnitude & 7)), (magnitude >> 3) - 10);
}

uint8_t ToE4M3(float x) {
  if (std::isnan(x)) return 0x7F;
  const float magnitude = std::min(std::fabs(x), 448.0f);
  const int sign = std::signbit(x) ? 0x80 : 0;
  // The spacing of E4M3 numbers around the magnitude; dividing by it is exact.
  const int exponent = magnitude < 0x1p-6f ? -6 : std::ilogb(magnitude);
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(magnitude, 3 - exponent)));
  if (exponent == -6 && steps < 8) return static_cast<uint8_t>(sign | steps);
  // 16 steps are the next power of two: the carry goes into the exponent by itself.
  return static_cast<uint8_t>(sign | (((exponent + 7) << 3) + steps - 8));
}

float FromE8M0(uint8_t bits) {
  if (bits == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::ldexp(1.0f, bits - 127);
}

uint8_t ToE8M0(float x) {
  if (!(x > 0) || std::isinf(x)) return 255;
  int exponent = 0;
  const float mantissa = std::frexp(x, &exponent);  // in [0.5, 1)
  const int nearest = mantissa < 0.75f ? exponent - 1 : exponent;
  return static_cast<uint8_t>(std::clamp(nearest, -127, 127) + 127);
}

float RoundTo(DType dtype, float x) {
  switch (dtype) {
    case DType::kF32:
      return x;
    case DType::kF16:
      return ToFloat(ToF16(x));
    case DType::kBF16:
      return ToFloat(ToBF16(x));
    case DType::kF8E4M3:
      return FromE4M3(ToE4M3(x));
    case DType::kF8E8M0:
      return FromE8M0(ToE8M0(x));
    default:
      Check(false, "RoundTo: not a float type");
      return x;
  }
}

}  // namespace quantmill
