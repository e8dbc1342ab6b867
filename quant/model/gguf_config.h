// config.json from the metadata of a GGUF file.
#ifndef QUANTMILL_QUANT_MODEL_GGUF_CONFIG_H_
#define QUANTMILL_QUANT_MODEL_GGUF_CONFIG_H_

#include <nlohmann/json_fwd.hpp>

#include "formats/gguf/model_files.h"

namespace quantmill {

// What transformers' config.json of the model says: sizes, rope and its scaling, which biases there
// are, whether the embedding serves as head (no output.weight). torch_dtype is left to the caller.
// The factors of Llama 3's rope are found from tensor rope_freqs.weight.
//
// Throws Error(kBadInput) naming the key: an architecture that is not read (gguf_family.h
// has those that are), a size that is missing or not positive, a key of the architecture that is
// not known (it may change what the model computes), rope factors that follow from no setting.
nlohmann::json ConfigOfGguf(const GgufModelFiles& files);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_GGUF_CONFIG_H_
