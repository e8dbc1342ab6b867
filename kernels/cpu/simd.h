// One vector type per instruction set: `Vec`, kLanes floats. Only for *_isa.cc sources (isa.h).
#ifndef QUANTMILL_KERNELS_CPU_SIMD_H_
#define QUANTMILL_KERNELS_CPU_SIMD_H_

#ifndef QUANTMILL_ISA
#error "simd.h is for sources compiled once per instruction set (see isa.h)"
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>
#include <cstring>

namespace quantmill::cpu::QUANTMILL_ISA {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(kLanes * 4)));
using VecInt = int32_t __attribute__((vector_size(kLanes * 4)));

inline Vec Load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
inline void Store(float* p, Vec v) { std::memcpy(p, &v, sizeof(v)); }
// Not Vec{} + x: that addition cannot be dropped (it turns -0 into 0).
inline Vec Set1(float x) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(x);
#elif defined(__AVX2__)
  return _mm256_set1_ps(x);
#else
  return Vec{x, x, x, x};
#endif
}
inline Vec Zero() { return Vec{}; }
// All bits set in the lanes that are NaN, none in the others.
inline VecInt IsNaN(Vec v) {
  return v != v;  // NOLINT(misc-redundant-expression): only a NaN differs from itself
}

// a * b + c, with one rounding where the instruction set has FMA.
inline Vec Fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
// c - a * b.
inline Vec Fnma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fnmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fnmadd_ps(a, b, c);
#else
  return c - a * b;
#endif
}
// Lane-wise; a NaN in `a` propagates.
inline Vec Max(Vec a, Vec b) { return b > a ? b : a; }
inline Vec Min(Vec a, Vec b) { return b < a ? b : a; }

// Round to nearest even, for |x| < 2^22.
inline Vec Round(Vec x) {
#if defined(__AVX512F__)
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
  const Vec magic = Set1(0x1.8p23f);
  return (x + magic) - magic;
#endif
}

// Sum over lanes, in a fixed tree order: lane i with lane i + half, halving.
inline float ReduceSum(Vec v) {
  float lanes[kLanes];
  Store(lanes, v);
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
  }
  return lanes[0];
}
inline float ReduceMax(Vec v) {
  float lanes[kLanes];
  Store(lanes, v);
  float m = lanes[0];
  for (int i = 1; i < kLanes; ++i) m = lanes[i] > m ? lanes[i] : m;
  return m;
}

// kLanes 16-bit floats widened to F32 (exact).
inline Vec LoadF16(const uint16_t* p) {
#if defined(__AVX512F__)
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  float out[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t magnitude = p[i] & 0x7FFFu;
    const uint32_t sign = static_cast<uint32_t>(p[i] & 0x8000u) << 16;
    uint32_t bits = magnitude << 13;
    if (magnitude >= 0x7C00u) {
      bits = 0x7F800000u | ((magnitude & 0x3FFu) << 13);
    } else {
      float scaled;
      std::memcpy(&scaled, &bits, 4);
      scaled *= 0x1p112f;
      std::memcpy(&bits, &scaled, 4);
    }
    bits |= sign;
    std::memcpy(&out[i], &bits, 4);
  }
  return Load(out);
#endif
}
#if defined(__AVX512F__)
inline Vec WidenBF16(__m256i words) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}
#endif
inline Vec LoadBF16(const uint16_t* p) {
#if defined(__AVX512F__)
  return WidenBF16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
#else
  float out[kLanes];
  for (int i = 0; i < kLanes; ++i) {
    const uint32_t bits = static_cast<uint32_t>(p[i]) << 16;
    std::memcpy(&out[i], &bits, 4);
  }
  return Load(out);
#endif
}

// Round to nearest even, NaN kept (quiet): the same bits as ToBF16 of dtype.h.
inline void StoreBF16(uint16_t* p, Vec v) {
  VecInt bits;
  std::memcpy(&bits, &v, sizeof(bits));
  const VecInt rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
  const VecInt quiet = (bits >> 16) | 0x40;
  const VecInt result = IsNaN(v) ? quiet : rounded;
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(result)));
#else
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint16_t>(result[i]);
#endif
}

// e^x, relative error below 2^-22 for x in [-87, 88]; 0 below, infinity above; NaN propagates.
// Cody-Waite reduction and a degree-6 polynomial (the coefficients of Cephes expf).
inline Vec Exp(Vec x) {
  const Vec clamped = Min(Max(x, Set1(-104.0f)), Set1(89.0f));
  const Vec n = Round(clamped * 1.44269504088896341f);
  Vec r = Fnma(n, Set1(0.693359375f), clamped);
  r = Fma(n, Set1(2.12194440e-4f), r);
  Vec p = Set1(1.9875691500e-4f);
  p = Fma(p, r, Set1(1.3981999507e-3f));
  p = Fma(p, r, Set1(8.3334519073e-3f));
  p = Fma(p, r, Set1(4.1665795894e-2f));
  p = Fma(p, r, Set1(1.6666665459e-1f));
  p = Fma(p, r, Set1(5.0000001201e-1f));
  p = Fma(p, r * r, r + 1.0f);
  // 2^n in two factors, so that results near overflow and subnormal ones come out.
  const VecInt ni = __builtin_convertvector(n, VecInt);
  const VecInt half = ni >> 1;
  const VecInt low = (half + 127) << 23;
  const VecInt high = (ni - half + 127) << 23;
  Vec scale_low;
  Vec scale_high;
  std::memcpy(&scale_low, &low, sizeof(low));
  std::memcpy(&scale_high, &high, sizeof(high));
  const Vec result = p * scale_low * scale_high;
  return IsNaN(x) ? x : result;
}

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_SIMD_H_
