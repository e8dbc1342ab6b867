// Static scales of rounded inputs and of FP8 caches, from the range that calibration tokens showed.
#ifndef QUANTMILL_QUANT_TRANSFORM_STATIC_INPUTS_H_
#define QUANTMILL_QUANT_TRANSFORM_STATIC_INPUTS_H_

#include <vector>

#include "kernels/core/scheme.h"

namespace quantmill {

struct ValueRange {
  float lo = 0;
  float hi = 0;
};

// The range of all columns together after column i was divided by scales[i] (empty: ones).
// lo, hi: [in], least and largest value of each column (Backend::AddRange). Widened to hold 0.
ValueRange RangeOfInputs(const std::vector<float>& lo, const std::vector<float>& hi,
                         const std::vector<float>& scales);

// Sets input_scale (and input_zero_point) so that the range is covered:
//   int8 symmetric    scale = absmax / 127.5 (formats.md section 4.3)
//   int8 asymmetric   scale = (hi - lo) / 255, zero_point = clamp(rint(-128 - lo / scale))
//   fp8               scale = absmax / 448
//   nvfp4             global scale = 448 * 6 / absmax: the largest group gets the largest scale
// A range of zero gets scale 1. REQUIRES: scheme.input.has_stored_scale(); lo <= 0 <= hi, finite.
void SetStaticInput(const ValueRange& range, QuantizedLinear& linear);

// The scales of an FP8 cache's keys, or values, of one layer: absmax / 448 of all heads together,
// or of each (`per_head`); 1 where everything was zero. absmax: [kv_heads], of keys after rope.
// Throws Error(kBadInput) if one is not finite.
std::vector<float> Fp8CacheScales(const std::vector<float>& absmax, bool per_head);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_TRANSFORM_STATIC_INPUTS_H_
