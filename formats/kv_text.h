// How the scheme of a key-value cache is spelled in recipes and records.
#ifndef QUANTMILL_FORMATS_KV_TEXT_H_
#define QUANTMILL_FORMATS_KV_TEXT_H_

#include <string>

#include "kernels/core/scheme.h"

namespace quantmill {

// "none", "fp8" (a scale for each layer), "fp8-head" (one for each head): as --kv-scheme spells
// what a file can hold.
std::string KvText(const KvScheme& kv);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_KV_TEXT_H_
