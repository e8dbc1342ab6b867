// Rotary frequencies from config.json (formats.md section 8.1).
#ifndef QUANTMILL_QUANT_MODEL_ROPE_H_
#define QUANTMILL_QUANT_MODEL_ROPE_H_

#include <optional>
#include <string>
#include <vector>

#include "quant/model/config_reader.h"
#include "quant/model/decoder_spec.h"

namespace quantmill {

// What config.json says of rope, before it becomes frequencies.
struct RopeScaling {
  double theta = 10000;
  std::string type = "default";          // as spelled; not checked to be known
  std::optional<ConfigReader> settings;  // rope_parameters or rope_scaling; set unless default
};
// rope_theta, and rope_scaling or transformers 5's rope_parameters. Error(kBadInput) for a theta
// that does not exceed 1.
RopeScaling FindRopeScaling(const ConfigReader& config);
// The same of layers that see everything, where transformers 5 has rope_parameters for each type of
// layer (Gemma 3).
RopeScaling FindMainRopeScaling(const ConfigReader& config);

// Llama 3.1: what each plain frequency is divided by, [rotary_dim / 2]. Wavelengths beyond the
// original context are stretched by the factor, short ones kept, the band between interpolated.
std::vector<double> Llama3Divisors(const ConfigReader& scaling, double theta, int64_t rotary_dim);

// The frequencies of the first `rotary_dim` elements of a head, which are even in number. Types
// default, linear, llama3, yarn, longrope (also spelled su); others (dynamic, mrope) change with
// the sequence or need more than frequencies: Error(kBadInput) naming the type. `config` is where
// longrope's original_max_position_embeddings may be as well.
RopeSpec MakeRope(const RopeScaling& scaling, int64_t rotary_dim, int64_t max_positions,
                  const ConfigReader& config);

// Whether the frequencies are those of theta alone.
bool IsPlain(const RopeSpec& rope);

// Reads rope_theta, partial_rotary_factor and rope_scaling (or transformers 5's rope_parameters).
RopeSpec ReadRope(const ConfigReader& config, int64_t head_dim, int64_t max_positions);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_ROPE_H_
