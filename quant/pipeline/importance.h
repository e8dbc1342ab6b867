// How large the inputs of each layer are over a text, as llama-imatrix measures it.
#ifndef QUANTMILL_QUANT_PIPELINE_IMPORTANCE_H_
#define QUANTMILL_QUANT_PIPELINE_IMPORTANCE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "formats/gguf/imatrix.h"
#include "kernels/ops.h"
#include "quant/calib/calibration_stream.h"
#include "quant/model/model_source.h"

namespace quantmill {

// Of the dense model: sums of x^2 over all tokens of `windows`, by the names that the tensors have
// in a GGUF file; embedding and head are left out. Every expert sees every token, as in quantize.
// progress:
// calls (done, total, layer) and may throw. Throws what DescribeGguf throws, and Error(kBadInput)
// for a source that is quantized.
ImportanceMatrix MeasureImportance(
    Backend& backend, Exec& exec, const ModelSource& source, const TokenWindows& windows,
    Compute compute, const std::function<void(int64_t, int64_t, const std::string&)>& progress);

// How many entries that has: tensors, of which one may stack many layers.
int64_t CountImportanceEntries(const ModelSource& source);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_IMPORTANCE_H_
