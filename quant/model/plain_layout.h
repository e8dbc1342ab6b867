// What OPT, GPT-2, GPT-NeoX, Falcon and BLOOM have in common: layer norms with biases, an MLP
// without a gate, sizes under keys of their own.
#ifndef QUANTMILL_QUANT_MODEL_PLAIN_LAYOUT_H_
#define QUANTMILL_QUANT_MODEL_PLAIN_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "quant/model/config_reader.h"
#include "quant/model/decoder_spec.h"

namespace quantmill {

// Sets heads, kv_heads and head_dim. REQUIRES: spec.hidden is set. Error(kBadInput) unless `key`
// divides it.
void ReadHeads(const ConfigReader& config, const std::string& key, DecoderSpec& spec);

// config[key], a number of layers.
int64_t ReadLayers(const ConfigReader& config, const std::string& key);

// `module` + ".weight" and ".bias" are a layer norm.
void SetAttentionNorm(const std::string& module, BlockSpec& block);
void SetMlpNorm(const std::string& module, BlockSpec& block);
void SetFinalNorm(const std::string& module, DecoderSpec& spec);

// What a family calls the modules of a block, and which of its linears have biases.
struct PlainModules {
  std::string attention, attention_norm, mlp_norm, up, down;  // behind the block's prefix
  std::string output;                                         // behind the attention's
  std::string query_key_value = {};  // behind the attention's; empty: three, which have no name yet
  int64_t fused_groups = 1;          // BlockSpec::FuseQueryKeyValue
  bool attention_bias = true;
  bool mlp_bias = true;
};
// REQUIRES: the sizes of `spec` are set.
BlockSpec PlainBlock(const DecoderSpec& spec, const PlainModules& modules,
                     const std::string& prefix);

// ALiBi's slopes (Press et al. 2021, section 3): for n = 2^k heads the powers of 2^(-8 / n); for
// other numbers those of the power of two below, then every second one of twice as many.
std::vector<float> AlibiSlopes(int64_t heads);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_PLAIN_LAYOUT_H_
