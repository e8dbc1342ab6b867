// Whether llama.cpp's graph of a family computes what a model does.
#ifndef QUANTMILL_QUANT_MODEL_GGUF_GRAPH_H_
#define QUANTMILL_QUANT_MODEL_GGUF_GRAPH_H_

#include <cstdint>

#include "quant/model/config_reader.h"
#include "quant/model/decoder_spec.h"
#include "quant/model/gguf_family.h"

namespace quantmill {

// Throws Error(kBadInput) naming the key of config.json for what the graph does not compute, and
// would silently ignore.
void CheckGgufGraph(const DecoderSpec& spec, const ConfigReader& config, const GgufFamily& family);

// What the graph multiplies q . k by.
float GgufAttentionScale(const GgufFamily& family, int64_t layers, int64_t hidden, int64_t heads,
                         int64_t head_dim);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_GGUF_GRAPH_H_
