// The decoder families of llama.cpp among ours: what its graph of each has built in. Data alone;
// gguf_layout.cc and gguf_config.cc act on it.
#ifndef QUANTMILL_QUANT_MODEL_GGUF_FAMILY_H_
#define QUANTMILL_QUANT_MODEL_GGUF_FAMILY_H_

#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/ops.h"

namespace quantmill {

// Which linear layers a graph adds a bias to.
enum class GgufBiases : uint8_t {
  kNone,
  kQueryKeyValue,  // those three, where the file has them
  kAny,            // every one, where the file has it
  kAll,            // every one, and the file must have it
};

// What the MLPs of a graph are.
enum class GgufExperts : uint8_t {
  kNone,          // dense, in every layer
  kRenormalized,  // mixtures in every layer; the chosen probabilities are made to sum to 1
  kAsRouted,      // mixtures in every layer; the probabilities are those of all experts
};

enum class GgufHead : uint8_t { kOwnOrTied, kOwn, kTied };

// How a graph knows positions. kTable: learned, in position_embd.weight.
enum class GgufPositions : uint8_t { kRope, kPartialRope, kTable, kAlibi };

// How a graph's attention and MLP come together (BlockOrder). kSaid: use_parallel_residual says.
enum class GgufResidual : uint8_t { kSequential, kParallel, kSaid };

struct GgufFamily {
  std::string_view architecture;  // of config.json
  std::string_view model_type;    // of config.json
  std::string_view name;          // in llama.cpp: general.architecture
  NormKind norm = NormKind::kRms;
  // kGelu: llama.cpp computes the tanh form of both, as its own converter has it.
  Activation activation = Activation::kSilu;
  GgufPositions positions = GgufPositions::kRope;
  GgufResidual residual = GgufResidual::kSequential;
  GgufBiases biases = GgufBiases::kNone;
  GgufExperts experts = GgufExperts::kNone;
  GgufHead head = GgufHead::kOwnOrTied;
  bool permuted = false;          // q and k are stored for the rotation of neighbours
  bool rope_freqs = false;        // divides frequencies by tensor rope_freqs.weight
  bool rope_factors = false;      // and by rope_factors_long.weight, rope_factors_short.weight
  bool square_attention = false;  // heads * head_dim must be the hidden size
  // attn_norm is the MLP's norm; where the attention has another, it is attn_norm_2.
  bool mlp_norm_first = false;
  bool softcaps = false;  // of scores and logits, in every model
  // Every so manieth layer sees everything, those between a window; 0: windows are unknown to it.
  int64_t window_period = 0;
  // Models of so many layers scale scores by the square root of hidden / heads, others by that of
  // head_dim; 0: no exception.
  int64_t wide_scale_layers = 0;
};

std::span<const GgufFamily> GgufFamilies();

// By the architecture of config.json; null where llama.cpp has none, or none is written.
const GgufFamily* FindGgufFamily(std::string_view architecture);

// By llama.cpp's name. Where several share it: the first, with experts or without. Null: not read.
const GgufFamily* FindGgufFamily(std::string_view name, bool has_experts);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_GGUF_FAMILY_H_
