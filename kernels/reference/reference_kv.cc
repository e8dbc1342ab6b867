#include "kernels/reference/reference_kv.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace quantmill::reference {
namespace {

// In F32, as ops.h says: codes depend on every bit.
void Rotate(std::span<float> x) {
  for (size_t half = 1; half < x.size(); half *= 2) {
    for (size_t i = 0; i < x.size(); ++i) {
      if ((i & half) != 0) continue;
      const float a = x[i];
      const float b = x[i + half];
      x[i] = a + b;
      x[i + half] = a - b;
    }
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(x.size()));
  for (float& value : x) value *= scale;
}

void RoundToIntegers(float limit, std::span<float> x) {
  float absmax = 0;
  for (const float value : x) {
    if (std::isnan(value)) absmax = value;
    if (std::fabs(value) > absmax) absmax = std::fabs(value);
  }
  const float scale = absmax / limit;
  const float factor = absmax > 0 ? limit / absmax : 0.0f;
  for (float& value : x) {
    const float scaled = value * factor;
    const float code =
        std::isnan(scaled) ? 0.0f : std::clamp(std::nearbyint(scaled), -limit, limit);
    value = code * scale;
  }
}

}  // namespace

void RoundHead(const KvShape& shape, float scale, std::span<float> x) {
  switch (shape.scheme.type) {
    case KvScheme::Type::kNone:
      for (float& value : x) value = RoundTo(shape.dtype, value);
      return;
    case KvScheme::Type::kFp8:
      for (float& value : x) value = RoundTo(DType::kF8E4M3, value / scale) * scale;
      return;
    case KvScheme::Type::kInt8:
      return RoundToIntegers(127, x);
    case KvScheme::Type::kInt4:
      Rotate(x);
      return RoundToIntegers(7, x);
  }
}

// The sign of H[i, j] is the parity of the bits that i and j share.
void RotateExactly(std::span<double> y) {
  const std::vector<double> x(y.begin(), y.end());
  for (size_t i = 0; i < y.size(); ++i) {
    y[i] = 0;
    for (size_t j = 0; j < y.size(); ++j) y[i] += std::popcount(i & j) % 2 == 0 ? x[j] : -x[j];
    y[i] /= std::sqrt(static_cast<double>(y.size()));
  }
}

}  // namespace quantmill::reference
