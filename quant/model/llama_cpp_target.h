// The rules of llama.cpp among those of serving_target.h. It reads one kind of file, and splits a
// model over devices whatever the file.
#ifndef QUANTMILL_QUANT_MODEL_LLAMA_CPP_TARGET_H_
#define QUANTMILL_QUANT_MODEL_LLAMA_CPP_TARGET_H_

#include <span>
#include <string_view>

#include "quant/model/serving_target.h"

namespace quantmill {

// Arguments as of CheckServingTarget. Whether rows fill blocks is no rule: what does not gets other
// blocks (ChooseGgufTypes).
TargetVerdict CheckLlamaCpp(const ServingTarget& target, const DecoderSpec& spec,
                            std::string_view format, std::span<const QuantizedModule> modules);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_LLAMA_CPP_TARGET_H_
