// Rotary frequencies from config.json (formats.md section 8.1).
#ifndef QUANTMILL_QUANT_MODEL_ROPE_H_
#define QUANTMILL_QUANT_MODEL_ROPE_H_

#include "quant/model/config_reader.h"
#include "quant/model/decoder_spec.h"

namespace quantmill {

// Reads rope_theta, partial_rotary_factor and rope_scaling (or transformers 5's rope_parameters):
// types default, linear, llama3, yarn. Others (dynamic, longrope, mrope) change with the sequence
// or need more than frequencies: Error(kBadInput) naming the type.
RopeSpec ReadRope(const ConfigReader& config, int64_t head_dim, int64_t max_positions);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_ROPE_H_
