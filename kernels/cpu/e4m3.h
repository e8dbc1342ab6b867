// Vectors of E4M3 and E2M1 numbers, beyond simd.h. Only for *_isa.cc sources (isa.h).
#ifndef QUANTMILL_KERNELS_CPU_E4M3_H_
#define QUANTMILL_KERNELS_CPU_E4M3_H_

#include "kernels/cpu/simd.h"

namespace quantmill::cpu::QUANTMILL_ISA {

// kLanes numbers from their bits, none of which is NaN (NaN becomes 480). Their bits, moved into an
// F16, are the number times 2^-8, subnormal ones too (which an F32 would multiply at the cost of a
// trap into microcode).
inline Vec LoadE4M3(const uint8_t* p) {
#if defined(__AVX512F__)
  const __m256i wide = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  const __m256i half =
      _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(static_cast<int16_t>(0xBF80)));
  return _mm512_cvtph_ps(half) * Set1(0x1p8f);
#elif defined(__AVX2__)
  const __m128i wide = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m128i half =
      _mm_and_si128(_mm_slli_epi16(wide, 7), _mm_set1_epi16(static_cast<int16_t>(0xBF80)));
  return _mm256_cvtph_ps(half) * Set1(0x1p8f);
#else
  uint16_t half[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    half[i] = static_cast<uint16_t>(((p[i] & 0x80) << 8) | ((p[i] & 0x7F) << 7));
  }
  return LoadF16(half) * Set1(0x1p8f);
#endif
}

inline Vec Magnitude(Vec x) { return x < 0.0f ? -x : x; }

inline VecInt BitsOf(Vec v) {
  VecInt bits;
  std::memcpy(&bits, &v, sizeof(bits));
  return bits;
}

// The nearest numbers of kMantissa bits, ties to even, clamped to +-max; NaN stays. Below
// 2^kLeastExponent the spacing is that of the least exponent, which adding 1.5 * 2^23 of it leaves.
template <int kMantissa, int kLeastExponent>
inline Vec RoundToFloats(Vec x, float max) {
  constexpr int kDropped = 23 - kMantissa;
  const Vec value = Min(Max(x, Set1(-max)), Set1(max));
  VecInt bits = BitsOf(value);
  bits = (bits + ((1 << (kDropped - 1)) - 1) + ((bits >> kDropped) & 1)) & -(1 << kDropped);
  Vec normal;
  std::memcpy(&normal, &bits, sizeof(bits));
  constexpr float kLeast = kLeastExponent < 0 ? 1.0f / (1 << -kLeastExponent) : 1.0f;
  const Vec magic = Set1(1.5f * (1 << kDropped) * kLeast);
  // The sum loses the sign of a zero.
  const Vec small = (value + magic) - magic;
  const Vec number = Magnitude(value) < kLeast ? small : normal;
  return IsNaN(x) ? x : number;
}
inline Vec RoundToE4M3(Vec x) { return RoundToFloats<3, -6>(x, 448.0f); }
inline Vec RoundToE2M1(Vec x) { return RoundToFloats<1, 0>(x, 6.0f); }

// The bits of E4M3 numbers, 0x7F for NaN: times 2^-120, exponent and mantissa lie where an F32 has
// its own, subnormal where they are.
inline VecInt BitsOfE4M3(Vec number) {
  const VecInt scaled = BitsOf(number * Set1(0x1p-120f));
  const VecInt code = ((scaled >> 20) & 0x7F) | ((scaled >> 24) & 0x80);
  return IsNaN(number) ? VecInt{} + 0x7F : code;
}

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_E4M3_H_
