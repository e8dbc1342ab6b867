#include "quant/model/mixture_layout.h"

#include <set>

namespace quantmill {
namespace {

// Each has tensors that are looked for by name.
constexpr int64_t kMostExperts = 4096;

std::set<int64_t> ReadMlpOnlyLayers(const ConfigReader& config) {
  constexpr const char* kKey = "mlp_only_layers";
  std::set<int64_t> layers;
  if (!config.Has(kKey)) return layers;
  const nlohmann::json& list = config.json().at(kKey);
  if (!list.is_array()) config.Fail(kKey, "expected a list of layers");
  for (const nlohmann::json& layer : list) {
    if (!layer.is_number_integer()) config.Fail(kKey, "expected layers, found " + layer.dump());
    layers.insert(layer.get<int64_t>());
  }
  return layers;
}

}  // namespace

void SetMixture(const ConfigReader& config, const MixtureVariation& variation, int64_t hidden,
                BlockSpec& block) {
  const int64_t experts = config.Size(variation.experts_key);
  if (experts > kMostExperts) config.Fail(variation.experts_key, "out of range");
  const int64_t ffn = config.Size(variation.width_key);
  const auto mlp = [&](const std::string& module, int64_t width) {
    return MlpSpec{{module + "." + variation.gate, width, hidden, false},
                   {module + "." + variation.up, width, hidden, false},
                   {module + "." + variation.down, hidden, width, false}};
  };
  const std::string module = block.prefix + "." + variation.module;
  MixtureSpec& mixture = block.mixture;
  mixture.router = {module + ".gate", experts, hidden, false};
  mixture.top_k = config.Size("num_experts_per_tok");
  if (mixture.top_k > experts) {
    config.Fail("num_experts_per_tok", "is more than there are experts");
  }
  mixture.renormalize = variation.renormalize;
  for (int64_t e = 0; e < experts; ++e) {
    mixture.experts.push_back(mlp(module + ".experts." + std::to_string(e), ffn));
  }
  MlpSpec shared;
  if (variation.shared_expert_ffn > 0) {
    shared = mlp(module + ".shared_expert", variation.shared_expert_ffn);
    mixture.shared_gate = {module + ".shared_expert_gate", 1, hidden, false};
  }
  block.gate = shared.gate;
  block.up = shared.up;
  block.down = shared.down;
}

void SetQwenMixtures(const ConfigReader& config, const MixtureVariation& variation,
                     DecoderSpec& spec) {
  const int64_t step = config.SizeOr("decoder_sparse_step", 1);
  const std::set<int64_t> mlp_only = ReadMlpOnlyLayers(config);
  for (int64_t i = 0; i < spec.layers(); ++i) {
    if ((i + 1) % step != 0 || mlp_only.contains(i)) continue;
    SetMixture(config, variation, spec.hidden, spec.blocks[static_cast<size_t>(i)]);
    spec.ffn = config.Size(variation.width_key);
  }
}

}  // namespace quantmill
