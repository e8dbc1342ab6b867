// The `weights`, `input_activations` and `kv_cache_scheme` arguments of the configuration, to and
// from schemes. Private to formats/.
#ifndef QUANTMILL_FORMATS_COMPRESSED_TENSORS_ARGS_H_
#define QUANTMILL_FORMATS_COMPRESSED_TENSORS_ARGS_H_

#include <nlohmann/json_fwd.hpp>

#include "formats/config_field.h"
#include "kernels/core/scheme.h"

namespace quantmill {

// Throw Error(kBadInput) naming the key for what no QuantScheme or KvScheme can say. scale_dtype is
// set for FP4 alone: elsewhere it is the type of the tensor in the file, and F32 here.
QuantScheme ParseWeightArgs(const ConfigField& args);
// Whether `weights` say that act-order scattered the inputs of groups (weight_g_idx).
bool ParseActOrder(const ConfigField& args);
InputScheme ParseInputArgs(const ConfigField& args);
KvScheme ParseKvArgs(const ConfigField& args);

// The arguments that the library's presets have. Null for inputs that stay as they are, and for
// KvScheme::Type::kNone.
nlohmann::json WeightArgs(const QuantScheme& scheme);
nlohmann::json InputArgs(const InputScheme& input);
nlohmann::json KvArgs(const KvScheme& kv);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_COMPRESSED_TENSORS_ARGS_H_
