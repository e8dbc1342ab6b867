// Whether two quantized layers stand for the same values, however their formats tell them.
#ifndef QUANTMILL_QUANT_PIPELINE_SAME_VALUES_H_
#define QUANTMILL_QUANT_PIPELINE_SAME_VALUES_H_

#include <cstdint>
#include <optional>

#include "formats/row_band.h"
#include "kernels/core/scheme.h"

namespace quantmill {

// The first row of which any value differs, as DequantizeRow gives them. Layers of another shape
// differ in row 0. Reads equal integers at memory speed: values are only multiplied out where
// scales or groups differ. REQUIRES: CheckConsistent of both.
std::optional<int64_t> FindDifferentRow(const QuantizedLinear& a, const QuantizedLinear& b);
// The same of bands. Where both have words, equal ones beside equal grids are seen to make equal
// values; otherwise words are unpacked.
std::optional<int64_t> FindDifferentRow(RowBand& a, RowBand& b);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_SAME_VALUES_H_
