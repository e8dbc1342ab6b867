// Keys and values to and from the bytes of a cached block (attention_kernels.h). Only for *_isa.cc
// sources (isa.h).
#ifndef QUANTMILL_KERNELS_CPU_KV_CODEC_H_
#define QUANTMILL_KERNELS_CPU_KV_CODEC_H_

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/e4m3.h"
#include "kernels/cpu/simd_math.h"

namespace quantmill::cpu::QUANTMILL_ISA {

// ---- rotation ----

// x = H x / sqrt(n), n a power of two, in place: butterflies (a + b, a - b) at distances 1, 2, 4,
// ..., then one product with the rounded 1 / sqrt(n). Each sum has a fixed pair of operands, so
// the bits do not depend on the vector length.
inline void Rotate(float* x, int64_t n) {
  for (int64_t half = 1; half < n; half *= 2) {
    for (int64_t i = 0; i < n; i += 2 * half) {
      float* a = x + i;
      float* b = a + half;
      int64_t j = 0;
      for (; j + kLanes <= half; j += kLanes) {
        const Vec left = Load(a + j);
        const Vec right = Load(b + j);
        Store(a + j, left + right);
        Store(b + j, left - right);
      }
      for (; j < half; ++j) {
        const float left = a[j];
        const float right = b[j];
        a[j] = left + right;
        b[j] = left - right;
      }
    }
  }
  const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(n));
  for (int64_t i = 0; i < n; ++i) x[i] *= scale;
}

// ---- codes to floats ----

// A block of one kv head whose elements are not F32.
struct BlockCodes {
  KvFormat format;
  int64_t head_dim;
  const uint8_t* block;
  float key_scale;  // kFp8
  float value_scale;

  const uint8_t* values() const { return block + KeyBytes(format, head_dim); }
  const uint8_t* scales() const { return values() + ValueBytes(format, head_dim); }
};

inline Vec LoadCodes8(const uint8_t* p) {
  using Bytes = int8_t __attribute__((vector_size(kLanes)));
  Bytes bytes;
  std::memcpy(&bytes, p, sizeof(bytes));
  return __builtin_convertvector(__builtin_convertvector(bytes, VecInt), Vec);
}
inline Vec LoadNibbles(const uint8_t* p, bool high) {
  using Bytes = uint8_t __attribute__((vector_size(kLanes)));
  Bytes bytes{};
  std::memcpy(&bytes, p, sizeof(bytes));
  const Bytes half = high ? bytes >> 4 : bytes & 15;
  return __builtin_convertvector(__builtin_convertvector(half, VecInt) - 8, Vec);
}
inline Vec LoadNumbers8(const uint8_t* p) {
  const Vec number = LoadE4M3(p);
  return Magnitude(number) == 480.0f ? Set1(__builtin_nanf("")) : number;  // 480: NaN's bits
}

// Element `at` to at + kLanes of a row of `count` elements that starts at `row`; count is 16 or a
// multiple of it.
inline Vec LoadElements(KvFormat format, const uint8_t* row, int64_t count, int64_t at) {
  switch (format) {
    case KvFormat::kBF16:
      return LoadBF16(reinterpret_cast<const uint16_t*>(row) + at);
    case KvFormat::kFp8:
      return LoadNumbers8(row + at);
    case KvFormat::kInt8:
      return LoadCodes8(row + at);
    default: {
      const int64_t half = count / 2;
      if (half % kLanes == 0) return LoadNibbles(row + at % half, at >= half);
      // A row of 16 whose halves are shorter than a vector of 16: both at once.
      uint8_t codes[16];
      for (int64_t i = 0; i < 8; ++i) {
        codes[i] = row[i] & 15;
        codes[i + 8] = row[i] >> 4;
      }
      return LoadNibbles(codes, false);
    }
  }
}

// to: [head_dim][16].
inline void WidenKeys(const BlockCodes& codes, float* to) {
  const int64_t row_bytes = KeyBytes(codes.format, 1);
  for (int64_t key = 0; key < kBlockKeys; key += kLanes) {
    const bool tokens = HasTokenScales(codes.format);
    const Vec scale =
        tokens ? Load(reinterpret_cast<const float*>(codes.scales()) + key) : Set1(codes.key_scale);
    for (int64_t d = 0; d < codes.head_dim; ++d) {
      const Vec x = LoadElements(codes.format, codes.block + d * row_bytes, kBlockKeys, key);
      Store(to + d * kBlockKeys + key, codes.format == KvFormat::kBF16 ? x : x * scale);
    }
  }
}

// to: [16][PaddedDim(head_dim)].
inline void WidenValues(const BlockCodes& codes, float* to) {
  const int64_t padded = PaddedDim(codes.head_dim);
  const int64_t row_bytes = ValueBytes(codes.format, codes.head_dim) / kBlockKeys;
  const auto* scales = reinterpret_cast<const float*>(codes.scales()) + kBlockKeys;
  for (int64_t key = 0; key < kBlockKeys; ++key) {
    const Vec scale = Set1(HasTokenScales(codes.format) ? scales[key] : codes.value_scale);
    for (int64_t d = 0; d < padded; d += kLanes) {
      const Vec x = LoadElements(codes.format, codes.values() + key * row_bytes, padded, d);
      Store(to + key * padded + d, codes.format == KvFormat::kBF16 ? x : x * scale);
    }
  }
}

// ---- storing keys and values ----

inline void StoreElement(float* to, float x) { *to = x; }
inline void StoreElement(uint16_t* to, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  const bool nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  const uint32_t rounded =
      nan ? (bits >> 16) | 0x40u : (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  *to = static_cast<uint16_t>(rounded);
}

template <typename T>
inline void AppendFloats(const AppendTask& task) {
  const int64_t padded = PaddedDim(task.head_dim);
  const int64_t head_bytes = HeadBytes(task.format, task.head_dim);
  for (int64_t head = 0; head < task.kv_heads; ++head) {
    T* k = reinterpret_cast<T*>(static_cast<char*>(task.block) + head * head_bytes);
    T* v = k + kBlockKeys * task.head_dim;
    for (int64_t t = 0; t < task.tokens; ++t) {
      const int64_t slot = task.slot + t;
      const float* key = task.k + t * task.k_stride + head * task.head_dim;
      const float* value = task.v + t * task.v_stride + head * task.head_dim;
      for (int64_t d = 0; d < task.head_dim; ++d) StoreElement(k + d * kBlockKeys + slot, key[d]);
      T* row = v + slot * padded;
      for (int64_t d = 0; d < task.head_dim; ++d) StoreElement(row + d, value[d]);
      for (int64_t d = task.head_dim; d < padded; ++d) row[d] = T{};
    }
  }
}

// The largest magnitude of n floats; NaN if there is one.
inline float AbsMaxOf(const float* x, int64_t n) {
  float max = 0;
  for (int64_t i = 0; i < n; ++i) {
    const float magnitude = __builtin_fabsf(x[i]);
    if (magnitude != magnitude) return magnitude;  // NOLINT(misc-redundant-expression): a NaN
    max = magnitude > max ? magnitude : max;
  }
  return max;
}

// Where element d of a row of `count` goes, and how: a byte, or half of one.
inline void StoreCode(KvFormat format, uint8_t* row, int64_t count, int64_t d, int32_t code) {
  if (format != KvFormat::kInt4) {
    row[d] = static_cast<uint8_t>(code);
    return;
  }
  const int64_t half = count / 2;
  const int shift = d < half ? 0 : 4;
  uint8_t& byte = row[d % half];
  byte = static_cast<uint8_t>((byte & (0xF0 >> shift)) | ((code + 8) << shift));
}

// The codes of one token's head (ops.h): place(d, code) for each element; returns the scale.
template <typename Place>
inline float EncodeHead(KvFormat format, const float* x, int64_t n, float fp8_scale,
                        const Place& place) {
  float rotated[kMaxRotatedDim];
  if (format == KvFormat::kInt4) {
    std::memcpy(rotated, x, static_cast<size_t>(n) * sizeof(float));
    Rotate(rotated, n);
    x = rotated;
  }
  const bool fp8 = format == KvFormat::kFp8;
  const float limit = format == KvFormat::kInt4 ? 7.0f : 127.0f;
  const float absmax = fp8 ? 0.0f : AbsMaxOf(x, n);
  const Vec factor = Set1(absmax > 0.0f ? limit / absmax : 0.0f);
  for (int64_t d = 0; d < n; d += kLanes) {
    const int64_t count = n - d < kLanes ? n - d : kLanes;
    const Vec value = LoadPart(x + d, count);
    VecInt codes;
    if (fp8) {
      codes = BitsOfE4M3(RoundToE4M3(value / Set1(fp8_scale)));
    } else {
      const Vec scaled = value * factor;
      const Vec known = IsNaN(scaled) ? Vec{} : scaled;  // its scale is NaN, or infinite
      const Vec code = Round(Min(Max(known, Set1(-limit)), Set1(limit)));
      codes = __builtin_convertvector(code, VecInt);
    }
    for (int64_t i = 0; i < count; ++i) place(d + i, codes[i]);
  }
  return absmax / limit;
}

inline void AppendCodes(const AppendTask& task) {
  const KvFormat format = task.format;
  const int64_t dim = task.head_dim;
  const int64_t padded = PaddedDim(dim);
  const int64_t key_row = KeyBytes(format, 1);
  const int64_t value_row = ValueBytes(format, dim) / kBlockKeys;
  for (int64_t head = 0; head < task.kv_heads; ++head) {
    uint8_t* keys = static_cast<uint8_t*>(task.block) + head * HeadBytes(format, dim);
    uint8_t* values = keys + KeyBytes(format, dim);
    auto* scales = reinterpret_cast<float*>(values + ValueBytes(format, dim));
    for (int64_t t = 0; t < task.tokens; ++t) {
      const int64_t slot = task.slot + t;
      const float key_scale =
          EncodeHead(format, task.k + t * task.k_stride + head * dim, dim, task.key_scales[head],
                     [&](int64_t d, int32_t code) {
                       StoreCode(format, keys + d * key_row, kBlockKeys, slot, code);
                     });
      uint8_t* row = values + slot * value_row;
      std::memset(row, format == KvFormat::kInt4 ? 0x88 : 0, static_cast<size_t>(value_row));
      const float value_scale =
          EncodeHead(format, task.v + t * task.v_stride + head * dim, dim, task.value_scales[head],
                     [&](int64_t d, int32_t code) { StoreCode(format, row, padded, d, code); });
      if (!HasTokenScales(format)) continue;
      scales[slot] = key_scale;
      scales[kBlockKeys + slot] = value_scale;
    }
  }
}

}  // namespace quantmill::cpu::QUANTMILL_ISA

#endif  // QUANTMILL_KERNELS_CPU_KV_CODEC_H_
