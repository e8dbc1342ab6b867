#include "quant/model/gguf_config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "kernels/core/error.h"
#include "quant/model/gguf_family_config.h"
#include "quant/model/gguf_key_reader.h"
#include "quant/model/gguf_rope_config.h"

namespace quantmill {
namespace {

using nlohmann::json;

int64_t HeadDim(GgufKeyReader& keys, int64_t hidden, int64_t heads) {
  const std::optional<int64_t> head_dim = keys.MaybeSize("attention.key_length");
  if (!head_dim && hidden % heads != 0) {
    keys.Refuse(keys.Key("attention.head_count"),
                "does not divide embedding_length, and there is no attention.key_length");
  }
  const int64_t key_length = head_dim.value_or(hidden / heads);
  if (keys.MaybeSize("attention.value_length").value_or(key_length) != key_length) {
    keys.Refuse(keys.Key("attention.value_length"),
                "differs from attention.key_length, which is not read");
  }
  return key_length;
}

int64_t Vocabulary(GgufKeyReader& keys) {
  const GgufPlace* embedding = keys.files().Find("token_embd.weight");
  if (embedding == nullptr || embedding->tensor->shape.size() != 2) {
    throw Error(ErrorCode::kBadInput, keys.metadata().where(),
                "tensor 'token_embd.weight' is missing, or no matrix: this is no whole model");
  }
  const int64_t vocab = embedding->tensor->shape[0];
  if (keys.MaybeSize("vocab_size").value_or(vocab) != vocab) {
    keys.Refuse(keys.Key("vocab_size"), "differs from the " + std::to_string(vocab) +
                                            " rows of tensor 'token_embd.weight'");
  }
  return vocab;
}

double NormEps(GgufKeyReader& keys) {
  const char* name = keys.family().norm == NormKind::kRms ? "attention.layer_norm_rms_epsilon"
                                                          : "attention.layer_norm_epsilon";
  const std::optional<double> eps = keys.Real(name);
  if (!eps || *eps < 0) keys.metadata().Fail(keys.Key(name), "a positive number");
  return ShortestDecimal(*eps);
}

const char* ActivationName(Activation activation) {
  if (activation == Activation::kSilu) return "silu";
  return activation == Activation::kGelu ? "gelu" : "gelu_pytorch_tanh";
}

// Under Llama's keys.
json Sizes(GgufKeyReader& keys) {
  const GgufFamily& family = keys.family();
  const int64_t hidden = keys.Size("embedding_length");
  const int64_t heads = keys.Size("attention.head_count");
  return {{"architectures", {family.architecture}},
          {"model_type", family.model_type},
          {"hidden_size", hidden},
          {"intermediate_size", keys.Size("feed_forward_length")},
          {"num_hidden_layers", keys.Size("block_count")},
          {"num_attention_heads", heads},
          {"num_key_value_heads", keys.MaybeSize("attention.head_count_kv").value_or(heads)},
          {"head_dim", HeadDim(keys, hidden, heads)},
          {"vocab_size", Vocabulary(keys)},
          {"max_position_embeddings", keys.Size("context_length")},
          {"rms_norm_eps", NormEps(keys)},
          {"hidden_act", ActivationName(family.activation)},
          {"tie_word_embeddings", !keys.HasTensor("output.weight")}};
}

void AddRope(GgufKeyReader& keys, json& config) {
  const auto head_dim = config.at("head_dim").get<int64_t>();
  const int64_t rotary_dim = keys.MaybeSize("rope.dimension_count").value_or(head_dim);
  if (rotary_dim != head_dim) {
    if (keys.family().positions != GgufPositions::kPartialRope || rotary_dim > head_dim) {
      keys.Refuse(
          keys.Key("rope.dimension_count"),
          "rotates a part of each head of " + std::to_string(head_dim) + ", which is not read");
    }
    double part = static_cast<double>(rotary_dim) / static_cast<double>(head_dim);
    // Readers round the product down.
    if (static_cast<int64_t>(part * static_cast<double>(head_dim)) < rotary_dim) {
      part = std::nextafter(part, 1.0);
    }
    config["partial_rotary_factor"] = part;
  }
  AddRopeConfig(keys, rotary_dim, config);
}

void AddSpecialTokens(const GgufMetadata& metadata, json& config) {
  for (const auto& [name, key] : {std::pair{"bos", "bos"}, {"eos", "eos"}, {"pad", "padding"}}) {
    const std::optional<uint64_t> id =
        metadata.Unsigned(std::string("tokenizer.ggml.") + key + "_token_id");
    if (id) config[std::string(name) + "_token_id"] = *id;
  }
}

}  // namespace

json ConfigOfGguf(const GgufModelFiles& files) {
  GgufKeyReader keys(files);
  json config = Sizes(keys);
  const GgufPositions positions = keys.family().positions;
  if (positions == GgufPositions::kRope || positions == GgufPositions::kPartialRope) {
    AddRope(keys, config);
  }
  SpellConfig(keys, config);
  AddSpecialTokens(keys.metadata(), config);
  keys.RefuseUnknown();
  return config;
}

}  // namespace quantmill
