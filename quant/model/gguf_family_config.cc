#include "quant/model/gguf_family_config.h"

#include <cmath>
#include <string>
#include <utility>

#include "quant/model/gguf_graph.h"

namespace quantmill {
namespace {

using nlohmann::json;

void Rename(json& config, const char* from, const char* to) {
  config[to] = config.at(from);
  config.erase(from);
}

int64_t Integer(const json& config, const char* key) { return config.at(key).get<int64_t>(); }

void SpellLlama(GgufKeyReader& keys, json& config) {
  config["attention_bias"] = keys.HasTensor("blk.0.attn_q.bias");
  config["mlp_bias"] = keys.HasTensor("blk.0.ffn_gate.bias");
}

// Widths default to llama.cpp's.
void SpellExperts(GgufKeyReader& keys, json& config) {
  const int64_t experts = keys.Size("expert_count");
  const int64_t used = keys.Size("expert_used_count");
  config["num_experts_per_tok"] = used;
  if (keys.family().name == "llama") {
    config["num_local_experts"] = experts;
    return;
  }
  const int64_t ffn = Integer(config, "intermediate_size");
  config["num_experts"] = experts;
  config["moe_intermediate_size"] =
      keys.MaybeSize("expert_feed_forward_length").value_or(ffn / used);
  config["norm_topk_prob"] = keys.family().experts == GgufExperts::kRenormalized;
  config["decoder_sparse_step"] = 1;
  if (keys.family().name != "qwen2moe") return;
  config["qkv_bias"] = keys.HasTensor("blk.0.attn_q.bias");
  config["shared_expert_intermediate_size"] =
      keys.MaybeSize("expert_shared_feed_forward_length").value_or(ffn);
}

// Every `period`-th layer sees everything.
void AddWindows(GgufKeyReader& keys, int64_t window, json& config) {
  const int64_t period =
      keys.MaybeSize("attention.sliding_window_pattern").value_or(keys.family().window_period);
  json types = json::array();
  for (int64_t i = 1; i <= Integer(config, "num_hidden_layers"); ++i) {
    types.push_back(i % period == 0 ? "full_attention" : "sliding_attention");
  }
  config["sliding_window"] = window;
  config["layer_types"] = types;
}

// Defaults are llama.cpp's.
void SpellGemma(GgufKeyReader& keys, json& config) {
  Rename(config, "hidden_act", "hidden_activation");
  const float scale = GgufAttentionScale(
      keys.family(), Integer(config, "num_hidden_layers"), Integer(config, "hidden_size"),
      Integer(config, "num_attention_heads"), Integer(config, "head_dim"));
  config["query_pre_attn_scalar"] = std::lround(1 / (scale * scale));
  if (keys.family().name == "gemma2") {
    config["attn_logit_softcapping"] =
        ShortestDecimal(keys.Real("attn_logit_softcapping").value_or(50));
    config["final_logit_softcapping"] =
        ShortestDecimal(keys.Real("final_logit_softcapping").value_or(30));
    AddWindows(keys, keys.MaybeSize("attention.sliding_window").value_or(4096), config);
    return;
  }
  config["rope_local_base_freq"] = ShortestDecimal(keys.Real("rope.freq_base_swa").value_or(10000));
  AddWindows(keys, keys.Size("attention.sliding_window"), config);
}

// llama.cpp has no windows of this architecture; transformers has.
void SpellPhi3(GgufKeyReader& keys, json& config) {
  const int64_t window = keys.MaybeCount("attention.sliding_window").value_or(0);
  if (window > 0) config["sliding_window"] = window;
}

void SpellNeox(GgufKeyReader& keys, json& config) {
  Rename(config, "rope_theta", "rotary_emb_base");
  config["rotary_pct"] = config.value("partial_rotary_factor", 1.0);
  config.erase("partial_rotary_factor");
  const std::optional<bool> parallel = keys.Bool("use_parallel_residual");
  if (!parallel) keys.metadata().Fail(keys.Key("use_parallel_residual"), "a BOOL");
  config["use_parallel_residual"] = *parallel;
}

void SpellGpt2(GgufKeyReader&, json& config) {
  for (const auto& [from, to] : {std::pair{"hidden_size", "n_embd"},
                                 {"intermediate_size", "n_inner"},
                                 {"num_hidden_layers", "n_layer"},
                                 {"num_attention_heads", "n_head"},
                                 {"max_position_embeddings", "n_positions"}}) {
    Rename(config, from, to);
  }
  config.erase("hidden_act");
  config["activation_function"] = "gelu_new";
}

void SpellFalcon(GgufKeyReader& keys, json& config) {
  Rename(config, "intermediate_size", "ffn_hidden_size");
  Rename(config, "hidden_act", "activation");
  const int64_t kv_heads = Integer(config, "num_key_value_heads");
  const bool two_norms = keys.HasTensor("blk.0.attn_norm_2.weight");
  const bool new_architecture = kv_heads > 1 || two_norms;
  config["alibi"] = config["bias"] = false;
  config["parallel_attn"] = true;
  config["multi_query"] = kv_heads == 1;
  config["new_decoder_architecture"] = new_architecture;
  if (!new_architecture) return;
  config["num_kv_heads"] = kv_heads;
  config["num_ln_in_parallel_attn"] = two_norms ? 2 : 1;
}

void SpellBloom(GgufKeyReader& keys, json& config) {
  if (Integer(config, "intermediate_size") != 4 * Integer(config, "hidden_size")) {
    keys.Refuse(keys.Key("feed_forward_length"), "is not four times embedding_length");
  }
  config.erase("intermediate_size");
  config.erase("hidden_act");
  Rename(config, "num_hidden_layers", "n_layer");
  Rename(config, "num_attention_heads", "n_head");
  Rename(config, "max_position_embeddings", "seq_length");
}

// Of families whose heads fill the hidden size, and all have keys and values but Falcon's.
void CheckHeads(GgufKeyReader& keys, const json& config) {
  const int64_t heads = Integer(config, "num_attention_heads");
  if (Integer(config, "num_key_value_heads") != heads && keys.family().name != "falcon") {
    keys.Refuse(keys.Key("attention.head_count_kv"), "is not attention.head_count");
  }
  if (Integer(config, "head_dim") * heads != Integer(config, "hidden_size")) {
    keys.Refuse(keys.Key("attention.key_length"), "does not fill embedding_length");
  }
}

using Spell = void (*)(GgufKeyReader&, json&);
constexpr std::pair<std::string_view, Spell> kSpellings[] = {
    {"LlamaForCausalLM", SpellLlama},     {"Gemma2ForCausalLM", SpellGemma},
    {"Gemma3ForCausalLM", SpellGemma},    {"Phi3ForCausalLM", SpellPhi3},
    {"GPTNeoXForCausalLM", SpellNeox},    {"GPT2LMHeadModel", SpellGpt2},
    {"FalconForCausalLM", SpellFalcon},   {"BloomForCausalLM", SpellBloom},
    {"MixtralForCausalLM", SpellExperts}, {"Qwen2MoeForCausalLM", SpellExperts},
    {"Qwen3MoeForCausalLM", SpellExperts}};

}  // namespace

void SpellConfig(GgufKeyReader& keys, json& config) {
  const GgufFamily& family = keys.family();
  const bool plain = family.norm == NormKind::kLayer;
  if (plain) {
    CheckHeads(keys, config);
    Rename(config, "rms_norm_eps",
           family.name == "gptneox" ? "layer_norm_eps" : "layer_norm_epsilon");
  }
  for (const auto& [architecture, spell] : kSpellings) {
    if (architecture == family.architecture) spell(keys, config);
  }
  if (!plain) return;
  config.erase("num_key_value_heads");
  config.erase("head_dim");
}

}  // namespace quantmill
