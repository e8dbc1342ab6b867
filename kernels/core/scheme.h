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

// What a code stands for.
//   kInt   a signed integer of `bits` bits, less the group's zero point
//   kFp8   the bits of an E4M3 number (8 bits): up to 448, no infinities
//   kFp4   the bits of an E2M1 number (4 bits, sign in bit 3): 0 .5 1 1.5 2 3 4 6
//   kIq4Nl the place of a number among kIq4NlLevels, which has no zero
enum class CodeType : uint8_t { kInt, kFp8, kFp4, kIq4Nl };

// How the input of a layer is rounded before it is multiplied (formats.md section 4.4).
//   kInt8  integers: (code - zero_point) * scale, codes in [-128, 127]
//   kFp8   E4M3 numbers times a scale
//   kFp4   E2M1 numbers times a scale
struct InputScheme {
  enum class Type : uint8_t { kNone, kInt8, kFp8, kFp4 };
  static constexpr int64_t kPerToken = -1;

  Type type = Type::kNone;
  bool dynamic = true;    // scales from the values as they come; otherwise stored with the layer
  bool symmetric = true;  // false: a zero point; static kInt8 alone
  // Dynamic: inputs of one token that share a scale (fp8-block has 128); static: one for all.
  int64_t group_size = kPerToken;
  // Of dynamic scales: kF32, or what those of groups are rounded to: kF8E4M3, after they were
  // multiplied by a global scale that is stored with the layer (NVFP4: kFp4, groups of 16), or
  // kF8E8M0, powers of two (MXFP4, MXFP8: groups of 32).
  DType scale_dtype = DType::kF32;

  bool has_block_scales() const { return scale_dtype != DType::kF32; }
  bool has_global_scale() const { return scale_dtype == DType::kF8E4M3; }
  // QuantizedLinear::input_scale is used.
  bool has_stored_scale() const { return type != Type::kNone && (!dynamic || has_global_scale()); }

  friend bool operator==(const InputScheme&, const InputScheme&) = default;
};

// How the weight of one linear layer is stored, and its input rounded.
//   value = (code - zero_point) * scale          kInt; zero_point = 0 when symmetric
//   value = number(code) * (scale / global_scale)   the others; global_scale is 1 but for NVFP4
// Symmetric integers of b bits lie in [-2^(b-1), 2^(b-1) - 1]. One scale (and zero point) per
// `row_block` output rows and group of `group_size` consecutive inputs.
struct QuantScheme {
  static constexpr int64_t kPerChannel = -1;  // of group_size: one group spans the row
  static constexpr int64_t kAllRows = -1;  // of row_block: one scale for the whole column of groups

  int bits = 4;              // 2..8; 8 for kFp8, 4 for kFp4 and kIq4Nl
  bool symmetric = true;     // no zero points; always true but for integers
  int64_t group_size = 128;  // inputs per group, or kPerChannel
  // How the file stores scales: F32, F16, BF16; kF8E4M3 (NVFP4), kF8E8M0 (MXFP4: powers of two).
  DType scale_dtype = DType::kF16;
  CodeType code_type = CodeType::kInt;
  int64_t row_block = 1;  // output rows that share scales, or kAllRows
  InputScheme input = {};

  // Integers alone.
  int min_code() const { return -(1 << (bits - 1)); }
  int max_code() const { return (1 << (bits - 1)) - 1; }
  // The largest |number(code)| that is kept without clamping on both sides of zero: half the range
  // of integers (7.5 of 4 bits) and of kIq4Nl, 448, 6. A symmetric scale is absmax / this.
  float half_range() const;
  // Of a group of zeros: 1; the least F16 where no code stands for zero.
  float scale_of_zeros() const { return code_type == CodeType::kIq4Nl ? 0x1p-24f : 1; }
  int64_t GroupSizeFor(int64_t in) const { return group_size == kPerChannel ? in : group_size; }
  // ceil: a ragged last group exists only where a format allows it (the plan refuses it otherwise).
  int64_t GroupsFor(int64_t in) const {
    const int64_t size = GroupSizeFor(in);
    return in == 0 ? 0 : (in + size - 1) / size;
  }
  int64_t RowBlockFor(int64_t out) const { return row_block == kAllRows ? out : row_block; }
  bool has_global_scale() const { return scale_dtype == DType::kF8E4M3; }
  // Bits of one weight of a layer [out, in], scales and zero points included.
  double BitsPerWeight(int64_t out, int64_t in) const;

  friend bool operator==(const QuantScheme&, const QuantScheme&) = default;
};

// How keys and values are kept in the paged cache.
//   kFp8          E4M3 numbers times a calibrated scale of the layer (or of the head)
//   kInt8, kInt4  integers times a scale of each token and head, taken when they are stored; kInt4
//                 after a Hadamard rotation of each head
struct KvScheme {
  enum class Type : uint8_t { kNone, kFp8, kInt8, kInt4 };
  Type type = Type::kNone;  // kNone: as floats
  bool per_head = false;    // kFp8: a scale for each key-value head instead of each layer
  friend bool operator==(const KvScheme&, const KvScheme&) = default;
};

// "w4a16 g64 symmetric", "w8a8 per channel symmetric, inputs int8 per token", "fp8 per channel,
// ...", for people.
std::string Describe(const QuantScheme& scheme);

// The number that a code stands for (kFp8: a byte; kFp4, kIq4Nl: 0..15); NaN for the two E4M3 NaNs.
float NumberOf(CodeType type, int8_t code);
// The code of the nearest number, ties to the even mantissa (kIq4Nl: to the larger number), clamped
// to the largest. Not of kInt. x is not NaN.
int8_t NearestCode(CodeType type, float x);

// One quantized linear layer, unpacked, in host memory. Owns its arrays.
struct QuantizedLinear {
  QuantScheme scheme;
  int64_t out = 0;
  int64_t in = 0;
  // [out, in]: in [min_code, max_code] for kInt; the number's bits otherwise.
  std::vector<int8_t> codes;
  // [out, groups], each exactly representable in scale_dtype; rows of one row_block hold equal
  // scales. Nonzero, but for kIq4Nl, where it makes all of a group zero; below zero only where the
  // scheme is symmetric (a mirrored grid).
  std::vector<float> scales;
  std::vector<int8_t> zero_points;  // [out, groups] in [min_code, max_code]; empty if symmetric
  float global_scale = 1;           // divides the scales; other than 1 where has_global_scale()
  // Where input.has_stored_scale(): the scale of static inputs, or what divides the scales of
  // groups. The zero point is of static inputs alone.
  float input_scale = 0;
  int8_t input_zero_point = 0;

  int64_t groups() const { return scheme.GroupsFor(in); }
  // scales[row, group] as it multiplies numbers: divided by global_scale, in float.
  float EffectiveScale(int64_t row, int64_t group) const {
    const float scale = scales[static_cast<size_t>(row * groups() + group)];
    return scheme.has_global_scale() ? scale / global_scale : scale;
  }
};

// Aborts (Check) unless the sizes of the arrays agree with scheme, out and in.
void CheckConsistent(const QuantizedLinear& linear);

// Aborts (Check) unless a weight and its grid, in whatever memory, have the types and shapes of
// ops.h: weight [out, in] F32, scales [out, groups] F32, zero_points [out, groups] I8, or empty
// where the scheme is symmetric.
void CheckGrid(ConstMatrix weight, const QuantScheme& scheme, ConstMatrix scales,
               ConstMatrix zero_points);

// weight[o, i] = the value of the code, in float (one rounding after the effective scale).
// weight: [out, in] F32 in host memory, preallocated.
void Dequantize(const QuantizedLinear& linear, Matrix weight);

// One row of it. REQUIRES: CheckConsistent. to: [in].
void DequantizeRow(const QuantizedLinear& linear, int64_t row, float* to);

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_CORE_SCHEME_H_
