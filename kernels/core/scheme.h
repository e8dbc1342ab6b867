// The narrow waist: every solver yields a QuantizedLinear, every format packs and unpacks one,
// every backend prepacks one for its kernels.
#ifndef QUANTMILL_KERNELS_CORE_SCHEME_H_
#define QUANTMILL_KERNELS_CORE_SCHEME_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/core/dtype.h"
#include "kernels/core/matrix.h"

namespace quantmill {

// How the weight of one linear layer is stored.
// Integer codes are signed: symmetric b bits lie in [-2^(b-1), 2^(b-1) - 1], and
//   value = (code - zero_point) * scale          (zero_point = 0 when symmetric).
// One scale (and zero point) per output row and group of `group_size` consecutive inputs.
struct QuantScheme {
  static constexpr int64_t kPerChannel = -1;  // one group spans the row

  int bits = 4;                     // 2..8
  bool symmetric = true;            // no zero points
  int64_t group_size = 128;         // inputs per group, or kPerChannel
  DType scale_dtype = DType::kF16;  // F32, F16 or BF16: how the file stores scales

  int min_code() const { return -(1 << (bits - 1)); }
  int max_code() const { return (1 << (bits - 1)) - 1; }
  int64_t GroupSizeFor(int64_t in) const { return group_size == kPerChannel ? in : group_size; }
  // ceil: a ragged last group exists only where a format allows it (the plan refuses it otherwise).
  int64_t GroupsFor(int64_t in) const {
    const int64_t size = GroupSizeFor(in);
    return in == 0 ? 0 : (in + size - 1) / size;
  }
  friend bool operator==(const QuantScheme&, const QuantScheme&) = default;
};

// "w4a16 g64 symmetric", for people.
std::string Describe(const QuantScheme& scheme);

// One quantized linear layer, unpacked, in host memory. Owns its arrays.
struct QuantizedLinear {
  QuantScheme scheme;
  int64_t out = 0;
  int64_t in = 0;
  std::vector<int8_t> codes;        // [out, in], each in [min_code, max_code]
  std::vector<float> scales;        // [out, groups], each exactly representable in scale_dtype
  std::vector<int8_t> zero_points;  // [out, groups] in [min_code, max_code]; empty if symmetric

  int64_t groups() const { return scheme.GroupsFor(in); }
};

// Aborts (Check) unless the sizes of the arrays agree with scheme, out and in.
void CheckConsistent(const QuantizedLinear& linear);

// weight[o, i] = (code - zero_point) * scale, in float (one rounding).
// weight: [out, in] F32 in host memory, preallocated.
void Dequantize(const QuantizedLinear& linear, Matrix weight);

// One row of it. REQUIRES: CheckConsistent. to: [in].
void DequantizeRow(const QuantizedLinear& linear, int64_t row, float* to);

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_CORE_SCHEME_H_
