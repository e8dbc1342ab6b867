#include "kernels/core/scheme.h"

#include <algorithm>

namespace quantmill {

std::string Describe(const QuantScheme& scheme) {
  const std::string group = scheme.group_size == QuantScheme::kPerChannel
                                ? "per channel"
                                : "g" + std::to_string(scheme.group_size);
  return "w" + std::to_string(scheme.bits) + "a16 " + group +
         (scheme.symmetric ? " symmetric" : " asymmetric");
}

void CheckConsistent(const QuantizedLinear& linear) {
  const auto groups = static_cast<size_t>(linear.out * linear.groups());
  Check(linear.codes.size() == static_cast<size_t>(linear.out * linear.in),
        "QuantizedLinear: codes are not [out, in]");
  Check(linear.scales.size() == groups, "QuantizedLinear: scales are not [out, groups]");
  Check(linear.zero_points.size() == (linear.scheme.symmetric ? 0 : groups),
        "QuantizedLinear: zero points are not [out, groups], or present though symmetric");
}

void DequantizeRow(const QuantizedLinear& linear, int64_t row, float* to) {
  const int64_t groups = linear.groups();
  const int64_t group_size = linear.scheme.GroupSizeFor(linear.in);
  const int8_t* codes = linear.codes.data() + row * linear.in;
  for (int64_t g = 0; g < groups; ++g) {
    const auto at = static_cast<size_t>(row * groups + g);
    const float scale = linear.scales[at];
    const int zero = linear.scheme.symmetric ? 0 : linear.zero_points[at];
    const int64_t end = std::min(linear.in, (g + 1) * group_size);
    for (int64_t i = g * group_size; i < end; ++i) {
      to[i] = static_cast<float>(codes[i] - zero) * scale;
    }
  }
}

void Dequantize(const QuantizedLinear& linear, Matrix weight) {
  CheckConsistent(linear);
  Check(weight.rows == linear.out && weight.cols == linear.in, "Dequantize: weight is [out, in]");
  for (int64_t o = 0; o < linear.out; ++o) DequantizeRow(linear, o, weight.Row<float>(o));
}

}  // namespace quantmill
