#include "quant/model/gguf_config.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "formats/gguf/codec.h"
#include "kernels/core/error.h"
#include "quant/model/rope.h"

namespace quantmill {
namespace {

using nlohmann::json;

constexpr uint64_t kMostSize = uint64_t{1} << 40;  // as ConfigReader has it

struct ReadFamily {
  std::string_view name;          // in llama.cpp
  std::string_view architecture;  // of config.json
  std::string_view model_type;
  bool any_bias;  // the configuration says which linear layers have one
};
constexpr std::array kFamilies = {
    ReadFamily{"llama", "LlamaForCausalLM", "llama", true},
    ReadFamily{"qwen2", "Qwen2ForCausalLM", "qwen2", false},
    ReadFamily{"qwen3", "Qwen3ForCausalLM", "qwen3", false},
};

// Metadata holds F32; the decimal number that was meant is the shortest that rounds to it.
double Shortest(double value) {
  std::array<char, 64> text{};
  const auto written =
      std::to_chars(text.data(), text.data() + text.size(), static_cast<float>(value));
  double result = 0;
  std::from_chars(text.data(), written.ptr, result);
  return result;
}

class Config {
 public:
  explicit Config(const GgufModelFiles& files)
      : files_(files), metadata_(files.metadata()), family_(FindFamily()) {
    AddSizes();
    AddRope();
    AddBiases();
    AddSpecialTokens();
    RefuseUnknownKeys();
  }

  json Take() && { return std::move(config_); }

 private:
  const ReadFamily& FindFamily() const;
  void AddSizes();
  void AddRope();
  json ScalingOf(const std::string& type);
  json Llama3Scaling(const GgufPlace& factors);
  void AddBiases();
  void AddSpecialTokens();
  void RefuseUnknownKeys() const;

  [[noreturn]] void Refuse(const std::string& key, const std::string& what) const {
    throw Error(ErrorCode::kBadInput, metadata_.where(), "metadata key '" + key + "' " + what);
  }
  // Keys are those of the architecture, and from then on known.
  std::string Key(const std::string& name) {
    std::string key = std::string(family_.name) + "." + name;
    known_.insert(key);
    return key;
  }
  std::optional<int64_t> MaybeSize(const std::string& name) {
    const std::string key = Key(name);
    const std::optional<uint64_t> value = metadata_.Unsigned(key);
    if (!value) return std::nullopt;
    if (*value == 0 || *value > kMostSize) {
      Refuse(key, "is " + std::to_string(*value) + ", which is no possible size");
    }
    return static_cast<int64_t>(*value);
  }
  int64_t Size(const std::string& name) {
    const std::optional<int64_t> value = MaybeSize(name);
    if (!value) metadata_.Fail(Key(name), "a positive integer");
    return *value;
  }
  std::optional<double> Real(const std::string& name) {
    const std::string key = Key(name);
    const std::optional<double> value = metadata_.Real(key);
    if (value && !std::isfinite(*value)) Refuse(key, "is no finite number");
    return value;
  }
  bool HasTensor(const std::string& name) const { return files_.Find(name) != nullptr; }

  const GgufModelFiles& files_;
  const GgufMetadata& metadata_;
  std::set<std::string> known_;
  const ReadFamily& family_;
  json config_ = json::object();
};

const ReadFamily& Config::FindFamily() const {
  const std::string* name = metadata_.Text("general.architecture");
  if (name == nullptr) metadata_.Fail("general.architecture", "a STRING");
  const std::string* type = metadata_.Text("general.type");
  if (type != nullptr && *type != "model") {
    Refuse("general.type", "is '" + *type + "': this is no model's file");
  }
  std::string known;
  for (const ReadFamily& family : kFamilies) {
    if (family.name == *name) return family;
    known += (known.empty() ? "" : ", ") + std::string(family.name);
  }
  Refuse("general.architecture", "is '" + *name + "', which is not read; those that are: " + known);
}

void Config::AddSizes() {
  const int64_t hidden = Size("embedding_length");
  const int64_t heads = Size("attention.head_count");
  const std::optional<int64_t> head_dim = MaybeSize("attention.key_length");
  if (!head_dim && hidden % heads != 0) {
    Refuse(Key("attention.head_count"),
           "does not divide embedding_length, and there is no "
           "attention.key_length");
  }
  const int64_t key_length = head_dim.value_or(hidden / heads);
  if (MaybeSize("attention.value_length").value_or(key_length) != key_length) {
    Refuse(Key("attention.value_length"), "differs from attention.key_length, which is not read");
  }
  if (MaybeSize("rope.dimension_count").value_or(key_length) != key_length) {
    Refuse(Key("rope.dimension_count"),
           "rotates a part of each head of " + std::to_string(key_length) + ", which is not read");
  }
  const GgufPlace* embedding = files_.Find("token_embd.weight");
  if (embedding == nullptr || embedding->tensor->shape.size() != 2) {
    throw Error(ErrorCode::kBadInput, metadata_.where(),
                "tensor 'token_embd.weight' is missing, or no matrix: this is no whole model");
  }
  const int64_t vocab = embedding->tensor->shape[0];
  if (MaybeSize("vocab_size").value_or(vocab) != vocab) {
    Refuse(Key("vocab_size"),
           "differs from the " + std::to_string(vocab) + " rows of tensor 'token_embd.weight'");
  }
  const std::optional<double> eps = Real("attention.layer_norm_rms_epsilon");
  if (!eps || *eps < 0)
    metadata_.Fail(Key("attention.layer_norm_rms_epsilon"), "a positive number");
  config_ = {{"architectures", {family_.architecture}},
             {"model_type", family_.model_type},
             {"hidden_size", hidden},
             {"intermediate_size", Size("feed_forward_length")},
             {"num_hidden_layers", Size("block_count")},
             {"num_attention_heads", heads},
             {"num_key_value_heads", MaybeSize("attention.head_count_kv").value_or(heads)},
             {"head_dim", key_length},
             {"vocab_size", vocab},
             {"max_position_embeddings", Size("context_length")},
             {"rms_norm_eps", Shortest(*eps)},
             {"hidden_act", "silu"},
             {"tie_word_embeddings", !HasTensor("output.weight")}};
}

void Config::AddRope() {
  config_["rope_theta"] = Shortest(Real("rope.freq_base").value_or(10000));
  const std::string type_key = Key("rope.scaling.type");
  const std::string* type = metadata_.Text(type_key);
  Key("rope.scaling.finetuned");  // says where a scaling comes from, not what it is
  if (const GgufPlace* factors = files_.Find("rope_freqs.weight")) {
    if (type != nullptr && *type != "none") {
      Refuse(type_key, "is '" + *type + "' beside tensor 'rope_freqs.weight'");
    }
    const json scaling = Llama3Scaling(*factors);
    if (!scaling.is_null()) config_["rope_scaling"] = scaling;
    return;
  }
  const std::optional<double> old = Real("rope.scale_linear");
  if (type == nullptr && old && *old != 1) {
    config_["rope_scaling"] = {{"rope_type", "linear"}, {"factor", Shortest(*old)}};
  }
  if (type == nullptr || *type == "none") return;
  config_["rope_scaling"] = ScalingOf(*type);
}

json Config::ScalingOf(const std::string& type) {
  if (type != "linear" && type != "yarn") {
    Refuse(Key("rope.scaling.type"), "is '" + type + "', which is not read (linear, yarn)");
  }
  const std::optional<double> factor = Real("rope.scaling.factor");
  if (!factor || *factor <= 0) metadata_.Fail(Key("rope.scaling.factor"), "a positive number");
  if (Real("rope.scaling.attn_factor").value_or(1) != 1) {
    Refuse(Key("rope.scaling.attn_factor"), "is not 1, which is not read");
  }
  json scaling = {{"rope_type", type}, {"factor", Shortest(*factor)}};
  if (type == "yarn") {
    scaling["original_max_position_embeddings"] = Size("rope.scaling.original_context_length");
  }
  return scaling;
}

// Converters write what each frequency is divided by; configurations say what those follow from.
// The largest divisor is the factor. The others of Llama 3's family are low 1, high 4 and an
// original context of 8192; that they give the stored divisors is checked.
json Config::Llama3Scaling(const GgufPlace& factors) {
  const GgufTensor& tensor = *factors.tensor;
  const auto head_dim = config_.at("head_dim").get<int64_t>();
  if (tensor.type != GgmlType::kF32 || tensor.shape != std::vector<int64_t>{head_dim / 2}) {
    throw Error(
        ErrorCode::kBadInput, factors.Location(),
        "should be F32 [" + std::to_string(head_dim / 2) + "]: a divisor of each frequency");
  }
  std::vector<float> stored(static_cast<size_t>(head_dim / 2));
  DecodeRow(tensor.type, factors.file->Bytes(tensor), stored);
  constexpr double kTolerance = 1e-4;  // converters compute in float
  const auto near = [](double a, double b) { return std::abs(a - b) <= kTolerance * std::abs(b); };
  if (std::ranges::all_of(stored, [&](float value) { return near(value, 1); })) return nullptr;
  const double factor = *std::ranges::max_element(stored);
  for (const int64_t original : {8192, 4096, 2048, 16384, 32768}) {
    json scaling = {{"rope_type", "llama3"},
                    {"factor", std::round(factor * 1000) / 1000},
                    {"low_freq_factor", 1.0},
                    {"high_freq_factor", 4.0},
                    {"original_max_position_embeddings", original}};
    if (!std::isfinite(factor) || factor <= 1) break;
    const std::vector<double> divisors = Llama3Divisors(
        ConfigReader(scaling, metadata_.where()), config_.at("rope_theta").get<double>(), head_dim);
    if (std::ranges::equal(stored, divisors, near)) return scaling;
  }
  throw Error(ErrorCode::kBadInput, factors.Location(),
              "holds divisors of rotary frequencies that follow from no known scaling");
}

void Config::AddBiases() {
  if (!family_.any_bias) return;
  config_["attention_bias"] = HasTensor("blk.0.attn_q.bias");
  config_["mlp_bias"] = HasTensor("blk.0.ffn_gate.bias");
}

void Config::AddSpecialTokens() {
  for (const auto& [name, key] : {std::pair{"bos", "bos"}, {"eos", "eos"}, {"pad", "padding"}}) {
    const std::optional<uint64_t> id =
        metadata_.Unsigned(std::string("tokenizer.ggml.") + key + "_token_id");
    if (id) config_[std::string(name) + "_token_id"] = *id;
  }
}

void Config::RefuseUnknownKeys() const {
  // Of old converters of Meta's own files; the rows lie as in every other llama file.
  static const std::set<std::string> kHarmless = {"llama.tensor_data_layout"};
  const std::string prefix = std::string(family_.name) + ".";
  for (const GgufEntry& entry : metadata_.entries()) {
    if (!entry.key.starts_with(prefix) || known_.contains(entry.key)) continue;
    if (kHarmless.contains(entry.key)) continue;
    Refuse(entry.key, "is not known: it may change what the model computes");
  }
}

}  // namespace

json ConfigOfGguf(const GgufModelFiles& files) { return Config(files).Take(); }

}  // namespace quantmill
