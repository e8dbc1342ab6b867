// Quantized layers as GGUF blocks without rounding: the same codes and scales, laid out anew.
#ifndef QUANTMILL_FORMATS_GGUF_REPACK_H_
#define QUANTMILL_FORMATS_GGUF_REPACK_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "formats/artifact.h"
#include "formats/gguf/block_types.h"
#include "kernels/core/scheme.h"

namespace quantmill {

// The smallest type whose blocks hold every value of a module: Q4_0 for symmetric integers of up to
// 4 bits, Q5_0 for 5, Q8_0 for 6 to 8, MXFP4 for E2M1 numbers times powers of two, IQ4_NL for its
// levels. Groups of a multiple of 32 become several blocks with one scale. Throws Error(kUsage,
// module name) with the reason where no type does: zero points, groups that do not consist of
// blocks, other floats, inputs that the artifact rounds.
GgmlType BlockTypeFor(const QuantizedModule& module);

// Row `row` of `linear` as a row of `type`; value for value, -0 being 0. bytes: RowBytes(type, in).
// REQUIRES: CheckConsistent(linear); type is BlockTypeFor its module. Throws Error(kUsage, where)
// naming output and group where the block does not hold a scale exactly.
void RepackRow(const QuantizedLinear& linear, int64_t row, GgmlType type, const std::string& where,
               std::span<std::byte> bytes);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_REPACK_H_
