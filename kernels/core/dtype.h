// Element types and the scalar conversions of 16-bit floats (all round to nearest even).
#ifndef QUANTMILL_KERNELS_CORE_DTYPE_H_
#define QUANTMILL_KERNELS_CORE_DTYPE_H_

#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <string_view>

namespace quantmill {

// Names follow safetensors (formats.md section 1). Sub-byte codes have no DType: they live in
// packed words (packed.h).
enum class DType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kF8E4M3,
  kF8E8M0,
  kI64,
  kI32,
  kI16,
  kI8,
  kU8,
  kBool
};

// Bytes of one element.
constexpr int64_t SizeOf(DType dtype) {
  switch (dtype) {
    case DType::kF64:
    case DType::kI64:
      return 8;
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
    case DType::kI16:
      return 2;
    case DType::kF8E4M3:
    case DType::kF8E8M0:
    case DType::kI8:
    case DType::kU8:
    case DType::kBool:
      return 1;
  }
  return 0;
}

// "F32", "BF16", ... as safetensors spells them.
std::string_view NameOf(DType dtype);

// A floating type that dense weights may have.
constexpr bool IsDenseFloat(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kBF16;
}

// Storage types: the bits of a 16-bit float. Arithmetic happens in float.
struct BF16 {
  uint16_t bits = 0;
  friend bool operator==(BF16, BF16) = default;
};
struct F16 {
  uint16_t bits = 0;
  friend bool operator==(F16, F16) = default;
};

constexpr float ToFloat(float x) { return x; }
constexpr float ToFloat(BF16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.bits) << 16);
}

// Exact for every F16, subnormals, infinities and NaN included.
constexpr float ToFloat(F16 h) {
  const uint32_t sign = static_cast<uint32_t>(h.bits & 0x8000u) << 16;
  const uint32_t magnitude = h.bits & 0x7FFFu;
  if (magnitude >= 0x7C00u) {  // infinity or NaN
    return std::bit_cast<float>(sign | 0x7F800000u | ((magnitude & 0x3FFu) << 13));
  }
  // 2^112 moves the exponent bias from 15 to 127 and normalizes subnormals on the way.
  const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(scaled) | sign);
}

// Round to nearest even; NaN stays NaN (quiet).
constexpr BF16 ToBF16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
    return BF16{static_cast<uint16_t>((bits >> 16) | 0x40u)};
  }
  return BF16{static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}

// Round to nearest even; values past 65504 become infinity, as the hardware does.
constexpr F16 ToF16(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return F16{static_cast<uint16_t>(sign | 0x7E00u)};
  if (magnitude >= 0x477FF000u) return F16{static_cast<uint16_t>(sign | 0x7C00u)};
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 aligns the mantissa to units of 2^-24
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    return F16{static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3F000000u))};
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u) - 0x38000000u;
  return F16{static_cast<uint16_t>(sign | (rounded >> 13))};
}

// E4M3 (formats.md section 4.2; "fn"): bias 7, up to 448, no infinities, NaN 0x7F and 0xFF.
constexpr float FromE4M3(uint8_t bits) {
  const uint32_t magnitude = bits & 0x7Fu;
  if (magnitude == 0x7Fu) return std::numeric_limits<float>::quiet_NaN();
  // 2^120 moves the exponent bias from 7 to 127 and normalizes subnormals on the way.
  const float scaled = std::bit_cast<float>(magnitude << 20) * 0x1p120f;
  return (bits & 0x80u) != 0 ? -scaled : scaled;
}

// Round to nearest even, clamped to +-448; NaN stays NaN.
constexpr uint8_t ToE4M3(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 24) & 0x80u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return 0x7F;
  if (magnitude >= 0x43E00000u) return static_cast<uint8_t>(sign | 0x7Eu);
  if (magnitude < 0x3C800000u) {  // subnormal: adding 2^14 aligns the mantissa to units of 2^-9
    const float shifted = std::bit_cast<float>(magnitude) + 0x1p14f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x46800000u));
  }
  const uint32_t rounded = magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u) - (120u << 23);
  return static_cast<uint8_t>(sign | (rounded >> 20));
}

// E2M1: 0 .5 1 1.5 2 3 4 6, sign in bit 3; no infinities, no NaN. Higher bits are ignored.
constexpr float FromE2M1(uint8_t bits) {
  // 2^126 moves the exponent bias from 1 to 127 and normalizes 0.5 on the way.
  const float scaled = std::bit_cast<float>((bits & 7u) << 22) * 0x1p126f;
  return (bits & 8u) != 0 ? -scaled : scaled;
}

// Round to nearest even, clamped to +-6. x is not NaN.
constexpr uint8_t ToE2M1(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 28) & 8u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude >= 0x40C00000u) return static_cast<uint8_t>(sign | 7u);
  if (magnitude < 0x3F800000u) {  // subnormal: adding 2^22 aligns the mantissa to units of 2^-1
    const float shifted = std::bit_cast<float>(magnitude) + 0x1p22f;
    return static_cast<uint8_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x4A800000u));
  }
  const uint32_t rounded = magnitude + 0x1FFFFFu + ((magnitude >> 22) & 1u) - (126u << 23);
  return static_cast<uint8_t>(sign | (rounded >> 22));
}

// The sixteen numbers of ggml's IQ4_NL: denser about zero, as weights are.
inline constexpr std::array<int8_t, 16> kIq4NlLevels = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                        1,    13,   25,  38,  53,  69,  89,  113};
// Higher bits are ignored.
constexpr float FromIq4Nl(uint8_t code) { return kIq4NlLevels[code & 15u]; }
// The nearest one's, ties to the larger. x is not NaN.
constexpr uint8_t ToIq4Nl(float x) {
  uint8_t code = 0;
  while (code < 15 && 2 * x >= kIq4NlLevels[code] + kIq4NlLevels[code + 1u]) ++code;
  return code;
}

// E8M0: 2^(bits - 127); 255 is NaN. x > 0 is rounded to the nearest power of two (ties up),
// clamped to [2^-127, 2^127]; anything else becomes NaN.
constexpr float FromE8M0(uint8_t bits) {
  if (bits == 255) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(bits == 0 ? 0x00400000u : uint32_t{bits} << 23);
}
constexpr uint8_t ToE8M0(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  if (!(x > 0) || bits == 0x7F800000u) return 255;
  // Below 2^-126 mantissas are not normalized: halfway to it lies 0x600000.
  if (bits < 0x00600000u) return 0;
  const uint32_t nearest = (bits + 0x00400000u) >> 23;
  return static_cast<uint8_t>(nearest < 254 ? nearest : 254);
}

// x rounded to `dtype` (F32, F16, BF16, F8_E4M3, F8_E8M0) and back; NaN for other types.
constexpr float RoundedTo(DType dtype, float x) {
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
      return std::numeric_limits<float>::quiet_NaN();
  }
}

// The same; another type is a bug: Check.
float RoundTo(DType dtype, float x);

template <typename T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType kValue = DType::kF32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType kValue = DType::kF64;
};
template <>
struct DTypeOf<BF16> {
  static constexpr DType kValue = DType::kBF16;
};
template <>
struct DTypeOf<F16> {
  static constexpr DType kValue = DType::kF16;
};
template <>
struct DTypeOf<int8_t> {
  static constexpr DType kValue = DType::kI8;
};
template <>
struct DTypeOf<uint8_t> {
  static constexpr DType kValue = DType::kU8;
};
template <>
struct DTypeOf<int32_t> {
  static constexpr DType kValue = DType::kI32;
};
template <>
struct DTypeOf<int64_t> {
  static constexpr DType kValue = DType::kI64;
};

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_CORE_DTYPE_H_
