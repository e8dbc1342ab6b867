// Codes of single weights on the device, as ops.h defines them (RoundToGrid), and the grid of a
// matrix.
#ifndef QUANTMILL_KERNELS_CUDA_CODES_H_
#define QUANTMILL_KERNELS_CUDA_CODES_H_

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/core/dtype.h"
#include "kernels/core/scheme.h"
#include "kernels/cuda/device.h"

namespace quantmill::QUANTMILL_CUDA {

// Of one group of one row.
struct GridPoint {
  float scale = 1;
  int zero = 0;
};

// kIq4NlLevels in registers: a device cannot read the host's table.
__device__ inline float Level(int code) {
  constexpr std::array<int8_t, 16> kLevels = kIq4NlLevels;
  float level = kLevels[0];
#pragma unroll
  for (size_t i = 1; i < kLevels.size(); ++i) {
    level = code == static_cast<int>(i) ? static_cast<float>(kLevels[i]) : level;
  }
  return level;
}
__device__ inline int8_t NearestLevel(float quotient) {
  constexpr std::array<int8_t, 16> kLevels = kIq4NlLevels;
  int code = 0;
#pragma unroll
  for (size_t i = 1; i < kLevels.size(); ++i) {
    const int twice_the_middle = kLevels[i - 1] + kLevels[i];
    code += 2 * quotient >= static_cast<float>(twice_the_middle) ? 1 : 0;
  }
  return static_cast<int8_t>(code);
}

// How a weight becomes a code of one CodeType, and a code its value.
template <CodeType kType>
struct Codes {
  int min_code = 0;  // kInt alone
  int max_code = 0;

  // 1024 is past every integer code and keeps the sum exact. NaN becomes code 0.
  __device__ int8_t CodeOf(float w, const GridPoint& point) const {
    const float quotient = w / point.scale;
    if (std::isnan(quotient)) return 0;
    if constexpr (kType == CodeType::kFp8) return static_cast<int8_t>(ToE4M3(quotient));
    if constexpr (kType == CodeType::kFp4) return static_cast<int8_t>(ToE2M1(quotient));
    if constexpr (kType == CodeType::kIq4Nl) return NearestLevel(quotient);
    const auto nearest = static_cast<int>(rintf(fminf(fmaxf(quotient, -1024.0f), 1024.0f)));
    return static_cast<int8_t>(std::clamp(nearest + point.zero, min_code, max_code));
  }

  // As Dequantize has it.
  __device__ float ValueOf(int8_t code, const GridPoint& point) const {
    const auto bits = static_cast<uint8_t>(code);
    if constexpr (kType == CodeType::kFp8) return FromE4M3(bits) * point.scale;
    if constexpr (kType == CodeType::kFp4) return FromE2M1(bits) * point.scale;
    if constexpr (kType == CodeType::kIq4Nl) return Level(bits & 15) * point.scale;
    return static_cast<float>(code - point.zero) * point.scale;
  }
};

// Calls use(codes) with the Codes of `scheme`.
template <typename Use>
void WithCodes(const QuantScheme& scheme, const Use& use) {
  switch (scheme.code_type) {
    case CodeType::kInt:
      return use(Codes<CodeType::kInt>{scheme.min_code(), scheme.max_code()});
    case CodeType::kFp8:
      return use(Codes<CodeType::kFp8>{});
    case CodeType::kFp4:
      return use(Codes<CodeType::kFp4>{});
    case CodeType::kIq4Nl:
      return use(Codes<CodeType::kIq4Nl>{});
  }
}

// Scales and zero points of all groups, as kernels take them.
struct GridView {
  View<const float> scales;
  View<const int8_t> zeros;  // data is null where the scheme is symmetric
  int group_size;

  __device__ GridPoint At(int64_t row, int64_t column) const {
    const int group = static_cast<int>(column) / group_size;
    return {scales.Row(row)[group], zeros.data == nullptr ? 0 : zeros.Row(row)[group]};
  }
};

inline GridView GridOf(const QuantScheme& scheme, int64_t in, ConstMatrix scales,
                       ConstMatrix zero_points) {
  const ConstMatrix zeros = scheme.symmetric ? ConstMatrix{} : zero_points;
  return {In<float>(scales), In<int8_t>(zeros), static_cast<int>(scheme.GroupSizeFor(in))};
}

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_CODES_H_
