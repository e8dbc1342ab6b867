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
enum class GgufRole : uint8_t { kLinear, kQueryKeyValue, kValueOrDown, kEmbedding, kHead };

// Which rows of the checkpoint those of the file are, where they move.
struct GgufRowOrder {
  int64_t rope_heads = 0;     // rows are reordered within each of these (RopeRow); 0: they stay
  std::vector<RowRuns> runs;  // the file's rows are these, one after another; empty: all, as they
                              // are. Not with rope_heads

  bool moves() const { return rope_heads > 0 || !runs.empty(); }
  // The checkpoint's row that becomes row `row` of the file's `rows`.
  int64_t SourceOf(int64_t row, int64_t rows) const;
};

// One matrix [linear.out, linear.in]: a tensor, or one of the experts that a tensor stacks. The
// embedding is a linear whose name lacks ".weight".
struct GgufMatrix {
  LinearSpec linear;  // what the checkpoint calls it
  std::string name;   // of the tensor: "blk.0.attn_q.weight"
  GgufRowOrder order;
  GgufRole role = GgufRole::kLinear;
  int64_t layer = -1;   // of the block; -1: outside
  int64_t expert = 0;   // which of the stack it is
  int64_t experts = 0;  // in the stack; 0: the tensor is this matrix alone

  // Of the tensor: [out, in] or [experts, out, in].
  std::vector<int64_t> shape() const {
    if (experts == 0) return {linear.out, linear.in};
    return {experts, linear.out, linear.in};
  }
  int64_t first_row() const { return expert * linear.out; }  // of the tensor's rows
};

// One tensor that every file stores as F32: a norm, a bias, the router of a mixture, a table of
// positions.
struct GgufFloats {
  std::string source;  // the checkpoint's tensor
  std::string name;
  std::vector<int64_t> shape;  // in the checkpoint, of one or two dimensions
  GgufRowOrder order = {};     // of one dimension
  bool flat = false;           // [1, n] in the checkpoint, [n] in the file
  float added = 0;             // to every element, in the file: gains that are stored less 1

  std::vector<int64_t> stored_shape() const { return flat ? std::vector{shape.back()} : shape; }
};

// A tensor that follows from the configuration, F32 too.
struct GgufTable {
  std::string name;
  std::vector<float> values;
};

struct GgufLayout {
  std::string architecture;          // "llama"
  std::vector<GgufEntry> metadata;   // "<architecture>.*" keys
  std::vector<GgufMatrix> matrices;  // in the order of the file; those of a stack together
  std::vector<GgufFloats> floats;
  // Divisors of the rotary frequencies, [rotary_dim / 2]: "rope_freqs.weight" (the scaling of Llama
  // 3), "rope_factors_long.weight" and "rope_factors_short.weight" (longrope), or none.
  std::vector<GgufTable> tables;
};

// Whether DescribeGguf knows the family; architecture: as config.json names it.
bool HasGgufLayout(std::string_view architecture);

// `config`: config.json, from which `spec` was read. Throws Error(kBadInput) for a family that
// llama.cpp does not have or an option that its graph of the family does not know: other
// activations, biases, partial rotation, dense layers among mixtures, yarn with settings of its
// own. Where the graph has no sliding windows, one that is shorter than the context is told as the
// context, within which it has no effect.
GgufLayout DescribeGguf(const DecoderSpec& spec, const ConfigReader& config);

// The architecture "llama" rotates neighbours (2i, 2i + 1) where the checkpoint rotates halves
// (i, i + size/2), so rows of q and k move within each head of `rows / heads`. Returns the
// checkpoint's row that becomes row `row`. heads = 0: `row` itself. The size of a head is even.
int64_t RopeRow(int64_t row, int64_t rows, int64_t heads);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_GGUF_LAYOUT_H_
