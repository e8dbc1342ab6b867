// Codes of single weights, as ops.h defines them: shared by the reference's solve ops.
#ifndef QUANTMILL_KERNELS_REFERENCE_REFERENCE_CODES_H_
#define QUANTMILL_KERNELS_REFERENCE_REFERENCE_CODES_H_

#include <algorithm>
#include <cmath>

#include "kernels/core/scheme.h"

namespace quantmill::reference {

// RoundToGrid's formula. 1024 is past every integer code and keeps the sum exact; a NaN becomes
// code 0 here, and a Check in RoundToGrid.
inline int8_t CodeOf(float w, float scale, int zero, const QuantScheme& scheme) {
  const float quotient = w / scale;
  if (std::isnan(quotient)) return static_cast<int8_t>(0);
  if (scheme.code_type != CodeType::kInt) return NearestCode(scheme.code_type, quotient);
  const auto nearest = static_cast<int>(std::nearbyint(std::clamp(quotient, -1024.0f, 1024.0f)));
  return static_cast<int8_t>(std::clamp(nearest + zero, scheme.min_code(), scheme.max_code()));
}

// What a code stands for, as Dequantize has it.
inline float ValueOf(int8_t code, float scale, int zero, const QuantScheme& scheme) {
  if (scheme.code_type != CodeType::kInt) return NumberOf(scheme.code_type, code) * scale;
  return static_cast<float>(code - zero) * scale;
}

}  // namespace quantmill::reference

#endif  // QUANTMILL_KERNELS_REFERENCE_REFERENCE_CODES_H_
