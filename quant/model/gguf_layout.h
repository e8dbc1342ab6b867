// A decoder as llama.cpp spells it: architecture, metadata, tensor names, order of rows.
#ifndef QUANTMILL_QUANT_MODEL_GGUF_LAYOUT_H_
#define QUANTMILL_QUANT_MODEL_GGUF_LAYOUT_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/metadata.h"
#include "quant/model/config_reader.h"
#include "quant/model/decoder_spec.h"

namespace quantmill {

// What a matrix is for, as far as mixtures of types distinguish (formats.md section 7.6).
enum class GgufRole : uint8_t { kLinear, kValueOrDown, kEmbedding, kHead };

// One 2-D tensor [linear.out, linear.in]. The embedding is a linear whose name lacks ".weight".
struct GgufMatrix {
  LinearSpec linear;  // what the checkpoint calls it
  std::string name;   // "blk.0.attn_q.weight"
  int64_t heads = 0;  // rows are reordered within each of these (RopeRow); 0: rows stay
  GgufRole role = GgufRole::kLinear;
  int64_t layer = -1;  // of the block; -1: outside
};

// One 1-D tensor, stored as F32.
struct GgufVector {
  std::string source;  // the checkpoint's tensor
  std::string name;
  int64_t heads = 0;  // as in GgufMatrix
};

struct GgufLayout {
  std::string architecture;          // "llama"
  std::vector<GgufEntry> metadata;   // "<architecture>.*" keys
  std::vector<GgufMatrix> matrices;  // every tensor once, in the order of the file
  std::vector<GgufVector> vectors;
  // Divisors of the rotary frequencies, [rotary_dim / 2], for tensor "rope_freqs.weight" (the
  // scaling of Llama 3); empty: none.
  std::vector<float> rope_divisors;
};

// Whether DescribeGguf knows the family; architecture: as config.json names it.
bool HasGgufLayout(std::string_view architecture);

// `config`: config.json, from which `spec` was read. Throws Error(kBadInput) for a family that
// llama.cpp does not have or an option that its graph of the family does not know: other
// activations, biases, partial rotation, yarn with settings of its own. A sliding window shorter
// than the context is told as the context, within which it has no effect.
GgufLayout DescribeGguf(const DecoderSpec& spec, const ConfigReader& config);

// The architecture "llama" rotates neighbours (2i, 2i + 1) where the checkpoint rotates halves
// (i, i + size/2), so rows of q and k move within each head of `rows / heads`. Returns the
// checkpoint's row that becomes row `row`. heads = 0: `row` itself. The size of a head is even.
int64_t RopeRow(int64_t row, int64_t rows, int64_t heads);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_GGUF_LAYOUT_H_
