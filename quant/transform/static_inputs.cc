#include "quant/transform/static_inputs.h"

#include <algorithm>
#include <cmath>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr float kLargestFp8 = 448;
constexpr float kLargestFp4 = 6;
constexpr float kSmallestScale = 1e-30f;  // below it, values divided by it may overflow

}  // namespace

ValueRange RangeOfInputs(const std::vector<float>& lo, const std::vector<float>& hi,
                         const std::vector<float>& scales) {
  ValueRange range;
  for (size_t i = 0; i < lo.size(); ++i) {
    const float scale = scales.empty() ? 1.0f : scales[i];
    range.lo = std::min(range.lo, lo[i] / scale);
    range.hi = std::max(range.hi, hi[i] / scale);
  }
  return range;
}

void SetStaticInput(const ValueRange& range, QuantizedLinear& linear) {
  const InputScheme& input = linear.scheme.input;
  Check(input.has_stored_scale(), "SetStaticInput: inputs with a stored scale");
  Check(range.lo <= 0 && range.hi >= 0 && std::isfinite(range.hi - range.lo),
        "SetStaticInput: a finite range around 0");
  const float absmax = std::max(-range.lo, range.hi);
  linear.input_zero_point = 0;
  if (input.has_global_scale()) {
    linear.input_scale = absmax > kSmallestScale ? kLargestFp8 * kLargestFp4 / absmax : 1;
    return;
  }
  if (input.type == InputScheme::Type::kFp8) {
    linear.input_scale = absmax / kLargestFp8;
  } else if (input.symmetric) {
    linear.input_scale = absmax / 127.5f;
  } else {
    linear.input_scale = (range.hi - range.lo) / 255;
  }
  if (linear.input_scale < kSmallestScale) {  // nothing to round, or too small to divide by
    linear.input_scale = 1;
    return;
  }
  if (input.type == InputScheme::Type::kInt8 && !input.symmetric) {
    const float zero = std::nearbyint(-128 - range.lo / linear.input_scale);
    linear.input_zero_point = static_cast<int8_t>(std::clamp(zero, -128.0f, 127.0f));
  }
}

std::vector<float> Fp8CacheScales(const std::vector<float>& absmax, bool per_head) {
  std::vector<float> scales;
  scales.reserve(absmax.size());
  for (const float largest : absmax) {
    if (!std::isfinite(largest)) {
      throw Error(ErrorCode::kBadInput, "keys and values",
                  "a calibration token has a key or value that is NaN or infinite: check the "
                  "checkpoint, or run the model in F32");
    }
    scales.push_back(largest / kLargestFp8);
  }
  if (!per_head && !scales.empty()) scales = {*std::max_element(scales.begin(), scales.end())};
  for (float& scale : scales) {
    if (scale < kSmallestScale) scale = 1;
  }
  return scales;
}

}  // namespace quantmill
