// What config.json of a family says besides sizes and rope, and how it spells those.
#ifndef QUANTMILL_QUANT_MODEL_GGUF_FAMILY_CONFIG_H_
#define QUANTMILL_QUANT_MODEL_GGUF_FAMILY_CONFIG_H_

#include <nlohmann/json_fwd.hpp>

#include "quant/model/gguf_key_reader.h"

namespace quantmill {

// config: sizes and rope under Llama's keys; afterwards the family's own. Throws Error(kBadInput)
// naming the key for a value that the family's configuration cannot say.
void SpellConfig(GgufKeyReader& keys, nlohmann::json& config);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_GGUF_FAMILY_CONFIG_H_
