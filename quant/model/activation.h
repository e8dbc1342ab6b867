// The activation that config.json names.
#ifndef QUANTMILL_QUANT_MODEL_ACTIVATION_H_
#define QUANTMILL_QUANT_MODEL_ACTIVATION_H_

#include <string>

#include "kernels/ops.h"
#include "quant/model/config_reader.h"

namespace quantmill {

// config[key], or `fallback` where there is none. Error(kBadInput) for one that no op computes.
Activation ReadActivation(const ConfigReader& config, const std::string& key,
                          const std::string& fallback);

// Whether a(s x) = s a(x) for every s > 0: then scales pass through it, channel by channel.
constexpr bool CommutesWithScales(Activation activation) { return activation == Activation::kRelu; }

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_ACTIVATION_H_
