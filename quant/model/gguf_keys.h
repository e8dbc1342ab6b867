// The metadata of a GGUF file that says what its model computes.
#ifndef QUANTMILL_QUANT_MODEL_GGUF_KEYS_H_
#define QUANTMILL_QUANT_MODEL_GGUF_KEYS_H_

#include "quant/model/config_reader.h"
#include "quant/model/decoder_spec.h"
#include "quant/model/gguf_family.h"
#include "quant/model/gguf_layout.h"

namespace quantmill {

// Sets layout.metadata and layout.tables. REQUIRES: CheckGgufGraph. Throws Error(kBadInput) for
// windows and for a scaling of rope that the metadata cannot say.
void DescribeGgufKeys(const DecoderSpec& spec, const ConfigReader& config, const GgufFamily& family,
                      GgufLayout& layout);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_GGUF_KEYS_H_
