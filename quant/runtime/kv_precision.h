// How a model's keys and values are kept in its cache.
#ifndef QUANTMILL_QUANT_RUNTIME_KV_PRECISION_H_
#define QUANTMILL_QUANT_RUNTIME_KV_PRECISION_H_

#include <string>
#include <vector>

#include "kernels/ops.h"
#include "quant/model/model_source.h"

namespace quantmill {

struct KvPrecision {
  KvScheme scheme = {};       // kNone: floats of `dtype`
  DType dtype = DType::kF32;  // F32|BF16
  friend bool operator==(const KvPrecision&, const KvPrecision&) = default;
};

// What KvPrecisionNamed takes, "auto" first.
const std::vector<std::string>& KvPrecisionNames();

// auto: what the artifact declares, or else f32. f32, bf16, fp8, int8, int4. Throws Error(kUsage)
// naming --kv-cache where the model's heads do not allow it.
KvPrecision KvPrecisionNamed(const std::string& name, const ModelSource& source);

// "f32", "fp8 with the artifact's scales", "fp8 with scales of 1", "int8 per token and head", ...
std::string Describe(const KvPrecision& kv, const ModelSource& source);

// The type of keys and values where nothing asks for exact ones: that of the activations, if the
// backend is faster for it, or else F32.
DType FastCacheType(const BackendInfo& backend, Compute compute);

// Of a cache for `source` without any blocks yet. fp8 takes the scales that the artifact stores,
// and 1 where it stores none (as vLLM does).
KvShape KvShapeOf(const ModelSource& source, const KvPrecision& kv);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_KV_PRECISION_H_
