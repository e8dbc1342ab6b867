#include "quant/model/plain_layout.h"

#include <bit>
#include <cmath>

namespace quantmill {

void ReadHeads(const ConfigReader& config, const std::string& key, DecoderSpec& spec) {
  spec.heads = config.Size(key);
  spec.kv_heads = spec.heads;
  if (spec.hidden % spec.heads != 0) config.Fail(key, "does not divide the hidden size");
  spec.head_dim = spec.hidden / spec.heads;
}

int64_t ReadLayers(const ConfigReader& config, const std::string& key) {
  const int64_t layers = config.Size(key);
  if (layers > 10000) config.Fail(key, "out of range");
  return layers;
}

void SetAttentionNorm(const std::string& module, BlockSpec& block) {
  block.attention_norm = module + ".weight";
  block.attention_norm_bias = module + ".bias";
}

void SetMlpNorm(const std::string& module, BlockSpec& block) {
  block.mlp_norm = module + ".weight";
  block.mlp_norm_bias = module + ".bias";
}

void SetFinalNorm(const std::string& module, DecoderSpec& spec) {
  spec.final_norm = module + ".weight";
  spec.final_norm_bias = module + ".bias";
}

BlockSpec PlainBlock(const DecoderSpec& spec, const PlainModules& modules,
                     const std::string& prefix) {
  BlockSpec block;
  block.prefix = prefix;
  block.attention = prefix + modules.attention;
  SetAttentionNorm(prefix + modules.attention_norm, block);
  SetMlpNorm(prefix + modules.mlp_norm, block);
  block.query = {"", spec.hidden, spec.hidden, modules.attention_bias};
  block.key = {"", spec.kv_heads * spec.head_dim, spec.hidden, modules.attention_bias};
  block.value = block.key;
  if (!modules.query_key_value.empty()) {
    block.FuseQueryKeyValue(block.attention + modules.query_key_value, modules.fused_groups);
  }
  block.output = {block.attention + modules.output, spec.hidden, spec.hidden,
                  modules.attention_bias};
  block.up = {prefix + modules.up, spec.ffn, spec.hidden, modules.mlp_bias};
  block.down = {prefix + modules.down, spec.hidden, spec.ffn, modules.mlp_bias};
  return block;
}

std::vector<float> AlibiSlopes(int64_t heads) {
  const auto power = static_cast<int64_t>(std::bit_floor(static_cast<uint64_t>(heads)));
  std::vector<float> slopes;
  slopes.reserve(static_cast<size_t>(heads));
  for (int64_t i = 1; i <= power; ++i) {
    slopes.push_back(
        static_cast<float>(std::exp2(-8.0 * static_cast<double>(i) / static_cast<double>(power))));
  }
  for (int64_t i = 0; i < heads - power; ++i) {
    slopes.push_back(static_cast<float>(
        std::exp2(-4.0 * static_cast<double>(2 * i + 1) / static_cast<double>(power))));
  }
  return slopes;
}

}  // namespace quantmill
