#include "formats/zero_points.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Codes q of one row's group become -1 - q, and its scale changes sign.
void Mirror(QuantizedLinear& linear, int64_t row, int64_t group) {
  const int64_t size = linear.scheme.GroupSizeFor(linear.in);
  int8_t* codes = linear.codes.data() + row * linear.in;
  const int64_t end = std::min(linear.in, (group + 1) * size);
  for (int64_t i = group * size; i < end; ++i) codes[i] = static_cast<int8_t>(-1 - codes[i]);
  float& scale = linear.scales[static_cast<size_t>(row * linear.groups() + group)];
  scale = -scale;
}

}  // namespace

void ToAsymmetric(QuantizedLinear& linear) {
  Check(linear.scheme.symmetric && linear.scheme.code_type == CodeType::kInt,
        "ToAsymmetric: symmetric integers");
  linear.scheme.symmetric = false;
  linear.zero_points.assign(linear.scales.size(), 0);
  for (int64_t row = 0; row < linear.out; ++row) {
    for (int64_t group = 0; group < linear.groups(); ++group) {
      const auto at = static_cast<size_t>(row * linear.groups() + group);
      if (linear.scales[at] > 0) continue;
      linear.zero_points[at] = -1;
      Mirror(linear, row, group);
    }
  }
}

bool IsSymmetricInDisguise(const QuantizedLinear& linear) {
  return !linear.scheme.symmetric &&
         std::ranges::all_of(linear.zero_points, [](int8_t z) { return z == 0 || z == -1; });
}

void ToSymmetric(QuantizedLinear& linear) {
  Check(IsSymmetricInDisguise(linear), "ToSymmetric: other zero points");
  for (int64_t row = 0; row < linear.out; ++row) {
    for (int64_t group = 0; group < linear.groups(); ++group) {
      if (linear.zero_points[static_cast<size_t>(row * linear.groups() + group)] == -1) {
        Mirror(linear, row, group);
      }
    }
  }
  linear.scheme.symmetric = true;
  linear.zero_points.clear();
}

}  // namespace quantmill
