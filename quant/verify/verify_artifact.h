// Checks of a written artifact: the file, not the memory that made it.
#ifndef QUANTMILL_QUANT_VERIFY_VERIFY_ARTIFACT_H_
#define QUANTMILL_QUANT_VERIFY_VERIFY_ARTIFACT_H_

#include <functional>
#include <string>

#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/model/serving_target.h"
#include "quant/report/results.h"

namespace quantmill {

struct VerifyOptions {
  ServingTarget target;  // what it is to be loaded by: each rule of it that is broken is a problem
  // Called with (tensors or layers done, how many, name); returns true to stop with
  // Error(kInterrupted).
  std::function<bool(int64_t done, int64_t total, const std::string& layer)> progress;
};

// Opens `artifact`, decodes every quantized tensor by its format's own rules, and collects every
// problem found: a missing, extra, constant or non-finite tensor, a target layer left dense, codes
// or scales outside their format, a block without scales of its quantized cache, dense tensors that
// differ from the reference's bytes, a weight error that differs from what quantize recorded in
// quantmill.json, or is worse than any sound quantization's (relative squared error of a layer
// above 1: worse than storing zeros), files that were to be copied untouched and were not.
// `reference` may be null (checks that need it are then left out, and the report says so by its
// empty reference). A rotated artifact's reference is rotated again, in a folder of the system's
// temporary one, which takes the reference's size. A model that cannot be opened at all throws
// Error(kBadInput).
VerifyReport VerifyArtifact(const std::string& artifact, const ModelSource* reference,
                            ThreadPool& pool, const VerifyOptions& options);

// |dW|^2 / |W|^2 of a dequantized linear against the dense weight, summed in double.
// dense: [out, in] F32|F16|BF16 host memory.
double WeightError(const QuantizedLinear& linear, ConstMatrix dense, ThreadPool& pool);
// The same of decoded values, [out, in] F32 in host memory.
double WeightError(ConstMatrix values, ConstMatrix dense);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_VERIFY_VERIFY_ARTIFACT_H_
