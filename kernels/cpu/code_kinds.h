// How a weight becomes a code, in vectors, for each CodeType (scheme.h). Only for *_isa.cc sources
// (isa.h).
#ifndef QUANTMILL_KERNELS_CPU_CODE_KINDS_H_
#define QUANTMILL_KERNELS_CPU_CODE_KINDS_H_

#include "kernels/cpu/solve_kernels.h"
#include "kernels/cpu/tile_gemm.h"

namespace quantmill::cpu::QUANTMILL_ISA {

// value = number * scale.
struct Rounded {
  Vec number;
  VecInt code;
};

// kLanes codes to memory, the low byte of each.
inline void StoreCodes(int8_t* p, VecInt code) {
  using Bytes = int8_t __attribute__((vector_size(kLanes)));
  const Bytes bytes = __builtin_convertvector(code, Bytes);
  std::memcpy(p, &bytes, sizeof(bytes));
}

// Integers: clamp(rint(w / scale) + zero, lo, hi). NaN becomes code 0 and number NaN.
struct IntCodes {
  Vec lo;
  Vec hi;

  explicit IntCodes(const CodeRange& range)
      : lo(Broadcast(range.min_code)), hi(Broadcast(range.max_code)) {}

  Rounded Round(Vec w, Vec scale, Vec zero) const {
    const Vec code = CodeOf(w, scale, zero, lo, hi);
    return {code - zero, __builtin_convertvector(IsNaN(code) ? Vec{} : code, VecInt)};
  }
  // The number nearest to a quotient w / scale.
  Vec Nearest(Vec quotient, Vec zero) const {
    const Vec limit = Broadcast(1024.0f);
    const Vec code = QUANTMILL_ISA::Round(Min(Max(quotient, -limit), limit)) + zero;
    return Min(Max(code, lo), hi) - zero;
  }
  // The number of a stored code.
  static Vec Number(const int8_t* p, Vec zero) {
    using Bytes = int8_t __attribute__((vector_size(kLanes)));
    Bytes bytes;
    std::memcpy(&bytes, p, sizeof(bytes));
    return __builtin_convertvector(__builtin_convertvector(bytes, VecInt), Vec) - zero;
  }
};

inline VecInt BitsOf(Vec x) {
  VecInt bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
inline Vec FloatOf(VecInt bits) {
  Vec x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}

// Floats of kMantissa mantissa bits and least exponent kMinExponent, up to kMax / 2; ties to even.
// The code is the sign, then exponent and mantissa, in 8 or 4 bits.
template <int kMantissa, int kMinExponent, int kMaxNumber, int kSignBit>
struct FloatCodes {
  static constexpr int32_t kLeast = (127 + kMinExponent) << 23;  // the least exponent's float

  explicit FloatCodes(const CodeRange& /*range*/) {}

  Rounded Round(Vec w, Vec scale, Vec zero) const {
    const Vec signed_number = Nearest(w / scale, zero);
    const VecInt bits = BitsOf(signed_number);
    const Vec number = FloatOf(bits & 0x7FFFFFFF);
    const Vec least = FloatOf(VecInt{} + kLeast);
    const VecInt normal =
        (BitsOf(number) >> (23 - kMantissa)) - ((127 + kMinExponent - 1) << kMantissa);
    // Below the least exponent the code counts steps.
    const VecInt subnormal = __builtin_convertvector(
        number * FloatOf(VecInt{} + ((127 + kMantissa - kMinExponent) << 23)), VecInt);
    const VecInt code = number < least ? subnormal : normal;
    const VecInt sign = bits < 0 ? VecInt{} + kSignBit : VecInt{};
    return {signed_number, code | sign};
  }
  Vec Nearest(Vec quotient, Vec /*zero*/) const {
    const VecInt bits = BitsOf(quotient);
    const Vec magnitude =
        Min(FloatOf(bits & 0x7FFFFFFF), Broadcast(static_cast<float>(kMaxNumber)));
    // The distance of neighbours around the magnitude, a power of two: dividing is exact.
    VecInt exponent = BitsOf(magnitude) & 0x7F800000;
    exponent = exponent > kLeast ? exponent : VecInt{} + kLeast;
    const Vec step = FloatOf(exponent - (kMantissa << 23));
    const Vec number = QUANTMILL_ISA::Round(magnitude / step) * step;
    return FloatOf(BitsOf(number) | (bits & static_cast<int32_t>(0x80000000)));
  }
  static Vec Number(const int8_t* p, Vec /*zero*/) {
    using Bytes = int8_t __attribute__((vector_size(kLanes)));
    Bytes bytes;
    std::memcpy(&bytes, p, sizeof(bytes));
    const VecInt code = __builtin_convertvector(bytes, VecInt);
    const VecInt magnitude = code & (kSignBit - 1);
    // Exponent and mantissa in the place of a float's; multiplying moves the bias, and normalizes
    // what is below the least exponent.
    constexpr int32_t kScale = (127 + 127 + kMinExponent - 1) << 23;
    const Vec number = FloatOf(magnitude << (23 - kMantissa)) * FloatOf(VecInt{} + kScale);
    const VecInt sign =
        (code & kSignBit) != 0 ? VecInt{} + static_cast<int32_t>(0x80000000) : VecInt{};
    return FloatOf(BitsOf(number) | sign);
  }
};
using Fp8Codes = FloatCodes<3, -6, 448, 0x80>;
using Fp4Codes = FloatCodes<1, 0, 6, 8>;

// kIq4NlLevels (dtype.h, which sources compiled per instruction set do not include). Ties go to the
// larger level.
struct LevelCodes {
  static constexpr float kLevels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                        1,    13,   25,  38,  53,  69,  89,  113};

  explicit LevelCodes(const CodeRange& /*range*/) {}

  static Rounded Round(Vec w, Vec scale, Vec /*zero*/) {
    const Vec quotient = w / scale;
    Rounded rounded{Broadcast(kLevels[0]), VecInt{}};
    for (int i = 1; i < 16; ++i) {
      const VecInt above = quotient >= Broadcast((kLevels[i - 1] + kLevels[i]) / 2);
      rounded.number = above ? Broadcast(kLevels[i]) : rounded.number;
      rounded.code -= above;
    }
    return rounded;
  }
  static Vec Nearest(Vec quotient, Vec zero) { return Round(quotient, Broadcast(1), zero).number; }
  static Vec Number(const int8_t* p, Vec /*zero*/) {
    float numbers[kLanes];
    for (int i = 0; i < kLanes; ++i) numbers[i] = kLevels[p[i] & 15];
    return Load(numbers);
  }
};

// Calls use(kind) with the kind of codes of `range`.
template <typename Use>
auto WithCodes(const CodeRange& range, const Use& use) {
  switch (range.type) {
    case CodeKind::kFp8:
      return use(Fp8Codes(range));
    case CodeKind::kFp4:
      return use(Fp4Codes(range));
    case CodeKind::kIq4Nl:
      return use(LevelCodes(range));
    case CodeKind::kInt:
      break;
  }
  return use(IntCodes(range));
}

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_CODE_KINDS_H_
