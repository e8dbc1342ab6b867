// What reports say of a model's weights.
#ifndef QUANTMILL_TOOLS_WEIGHTS_H_
#define QUANTMILL_TOOLS_WEIGHTS_H_

#include <cstdint>
#include <string>

#include "quant/model/model_source.h"

namespace quantmill {

// "dense F16", "compressed-tensors, w4a16 g64 symmetric"; layers of several schemes: all of them.
std::string DescribeWeights(const ModelSource& source);

// Sizes of the weight files on disk.
uint64_t WeightFileBytes(const ModelSource& source);

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_WEIGHTS_H_
