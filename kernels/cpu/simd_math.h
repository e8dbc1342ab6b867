// Vector functions of the forward ops, beyond simd.h. Only for *_isa.cc sources (isa.h).
#ifndef QUANTMILL_KERNELS_CPU_SIMD_MATH_H_
#define QUANTMILL_KERNELS_CPU_SIMD_MATH_H_

#include "kernels/cpu/simd.h"

namespace quantmill::cpu::QUANTMILL_ISA {

// *p in all lanes: a memory operand of the arithmetic instruction that uses it, with AVX-512.
inline Vec Broadcast(const float* p) {
#if defined(__AVX512F__)
  return _mm512_set1_ps(*p);
#elif defined(__AVX2__)
  return _mm256_set1_ps(*p);
#else
  const float x = *p;
  return Vec{x, x, x, x};
#endif
}

// The first n lanes (0 <= n <= kLanes) from or to memory; the other lanes are 0, or not written.
inline Vec LoadPart(const float* p, int64_t n) {
  Vec v{};
  std::memcpy(&v, p, static_cast<size_t>(n) * sizeof(float));
  return v;
}
inline void StorePart(float* p, Vec v, int64_t n) {
  std::memcpy(p, &v, static_cast<size_t>(n) * sizeof(float));
}

// To memory of an output type: F32, or the bits of BF16.
inline void StoreAs(float* p, Vec v) { Store(p, v); }
inline void StoreAs(uint16_t* p, Vec v) { StoreBF16(p, v); }
inline void StorePartAs(float* p, Vec v, int64_t n) {
  if (n == kLanes) return Store(p, v);
  StorePart(p, v, n);
}
inline void StorePartAs(uint16_t* p, Vec v, int64_t n) {
  if (n == kLanes) return StoreBF16(p, v);
  uint16_t all[kLanes];
  StoreBF16(all, v);
  std::memcpy(p, all, static_cast<size_t>(n) * sizeof(uint16_t));
}

// Lane numbers 0, 1, ...
inline VecInt LaneIndex() {
  VecInt v{};
  for (int i = 0; i < kLanes; ++i) v[i] = i;
  return v;
}

// Lane-wise maximum in one instruction; the second operand wins where either is NaN.
inline Vec FastMax(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_max_ps(a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#elif defined(__SSE__)
  return _mm_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

// Largest lane, by halves.
inline float FastReduceMax(Vec v) {
#if defined(__AVX512F__)
  const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1));
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(v), high);
#elif defined(__AVX2__)
  const __m256 eight = v;
#endif
#if defined(__AVX2__)
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
#else
  return ReduceMax(v);
#endif
}

// 2^x for x <= 0, relative error below 2^-22; exactly 1 at 0; results below 2^-126 may be flushed
// to 0; NaN propagates. The polynomial is that of Cephes exp2f, on [-1/2, 1/2].
inline Vec Exp2NonPositive(Vec x) {
  // Below -127 the general path's exponent field would go negative; scalef has no such limit.
  constexpr float kFloor = kLanes == 16 ? -200.0f : -127.0f;
  const Vec clamped = FastMax(Set1(kFloor), x);
  const Vec n = Round(clamped);
  const Vec r = clamped - n;
  Vec p = Set1(1.535336188319500e-4f);
  p = Fma(p, r, Set1(1.339887440266574e-3f));
  p = Fma(p, r, Set1(9.618437357674640e-3f));
  p = Fma(p, r, Set1(5.550332471162809e-2f));
  p = Fma(p, r, Set1(2.402264791363012e-1f));
  p = Fma(p, r, Set1(6.931472028550421e-1f));
  p = Fma(p, r, Set1(1.0f));
#if defined(__AVX512F__)
  return _mm512_scalef_ps(p, n);
#else
  const VecInt bits = (__builtin_convertvector(n, VecInt) + 127) << 23;
  Vec scale;
  std::memcpy(&scale, &bits, sizeof(bits));
  return IsNaN(x) ? x : p * scale;
#endif
}

// tanh, relative error below 2^-21; NaN propagates. A polynomial (Cephes tanhf) where 1 - 2 / (e^2x
// + 1) would cancel.
inline Vec Tanh(Vec x) {
  const Vec magnitude = FastMax(-x, x);
  const Vec s = x * x;
  Vec p = Set1(-5.70498872745e-3f);
  p = Fma(p, s, Set1(2.06390887954e-2f));
  p = Fma(p, s, Set1(-5.37397155531e-2f));
  p = Fma(p, s, Set1(1.33314422036e-1f));
  p = Fma(p, s, Set1(-3.33332819422e-1f));
  const Vec small = Fma(p * s, x, x);
  const Vec large = 1.0f - 2.0f / (Exp(magnitude + magnitude) + 1.0f);
  const Vec result = magnitude < 0.625f ? small : (x < 0.0f ? -large : large);
  return IsNaN(x) ? x : result;
}

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_SIMD_MATH_H_
