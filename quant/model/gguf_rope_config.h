// config.json's rope_theta and rope_scaling from the metadata of a GGUF file.
#ifndef QUANTMILL_QUANT_MODEL_GGUF_ROPE_CONFIG_H_
#define QUANTMILL_QUANT_MODEL_GGUF_ROPE_CONFIG_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>

#include "quant/model/gguf_key_reader.h"

namespace quantmill {

// Adds them to `config`, which has max_position_embeddings. rotary_dim: elements of a head that
// rotate. Throws Error(kBadInput) naming key or tensor for a scaling that is not read, and for rope
// factors that follow from no setting.
void AddRopeConfig(GgufKeyReader& keys, int64_t rotary_dim, nlohmann::json& config);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_GGUF_ROPE_CONFIG_H_
