// GGUF files as models: written here by hand, read as the checkpoint that they stand for.
#include "quant/model/gguf_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "formats/gguf.h"
#include "formats/gguf/codec.h"
#include "quant/model/families.h"
#include "quant/model/gguf_layout.h"
#include "quant/model/model_source.h"
#include "tests/formats/format_test_util.h"
#include "tests/support/random.h"

namespace quantmill {
namespace {

using nlohmann::json;
using test::ExpectError;

constexpr int64_t kVocab = 10;

json TinyConfig(const std::string& architecture) {
  return {{"architectures", {architecture}}, {"hidden_size", 32},        {"intermediate_size", 64},
          {"num_hidden_layers", 2},          {"num_attention_heads", 4}, {"vocab_size", kVocab},
          {"num_key_value_heads", 2},        {"rms_norm_eps", 1e-5},     {"head_dim", 8},
          {"max_position_embeddings", 128},  {"hidden_act", "silu"},     {"rope_theta", 10000.0}};
}

// A file that tests change before it is written. Element i of the checkpoint's tensor t is a value
// of its own, so that a row in the wrong place is seen.
struct TinyGguf {
  explicit TinyGguf(const json& config) {
    const GgufLayout layout =
        DescribeGguf(DescribeDecoder(config, "config"), ConfigReader(config, "config"));
    metadata = {{"general.architecture", layout.architecture}};
    metadata.insert(metadata.end(), layout.metadata.begin(), layout.metadata.end());
    test::Random random(1);
    for (const GgufMatrix& matrix : layout.matrices) {
      const LinearSpec& linear = matrix.linear;
      tensors.push_back({matrix.name, GgmlType::kF16, {linear.out, linear.in}});
      std::vector<float> rows;
      std::vector<float> checkpoint(static_cast<size_t>(linear.out * linear.in));
      for (float& value : checkpoint)
        value = RoundTo(DType::kF16, static_cast<float>(random.Uniform(-1, 1)));
      for (int64_t row = 0; row < linear.out; ++row) {
        const auto at = RopeRow(row, linear.out, matrix.heads) * linear.in;
        rows.insert(rows.end(), checkpoint.begin() + at, checkpoint.begin() + at + linear.in);
      }
      values[matrix.name] = rows;
      wanted[matrix.role == GgufRole::kEmbedding ? linear.name : linear.name + ".weight"] =
          checkpoint;
    }
    for (const GgufVector& vector : layout.vectors) {
      const int64_t size = SizeOfVector(layout, vector);
      tensors.push_back({vector.name, GgmlType::kF32, {size}});
      std::vector<float> checkpoint(static_cast<size_t>(size));
      for (float& value : checkpoint)
        value = RoundTo(DType::kF16, static_cast<float>(random.Uniform(-1, 1)));
      for (int64_t i = 0; i < size; ++i) {
        values[vector.name].push_back(
            checkpoint[static_cast<size_t>(RopeRow(i, size, vector.heads))]);
      }
      wanted[vector.source] = checkpoint;
    }
    if (!layout.rope_divisors.empty()) {
      tensors.push_back({"rope_freqs.weight", GgmlType::kF32, {std::ssize(layout.rope_divisors)}});
      values["rope_freqs.weight"] = layout.rope_divisors;
    }
  }

  // A bias is as long as its matrix has rows, q and k norms as a head, other norms as the model.
  static int64_t SizeOfVector(const GgufLayout& layout, const GgufVector& vector) {
    for (const GgufMatrix& matrix : layout.matrices) {
      if (matrix.linear.name + ".bias" == vector.source) return matrix.linear.out;
    }
    const bool head = vector.name.find("_q_norm") != std::string::npos ||
                      vector.name.find("_k_norm") != std::string::npos;
    return head ? 8 : 32;
  }

  void Set(const std::string& key, GgufValue value) {
    Remove(key);
    metadata.push_back({key, std::move(value)});
  }
  void Remove(const std::string& key) {
    std::erase_if(metadata, [&](const GgufEntry& entry) { return entry.key == key; });
  }
  GgufDeclaration& Tensor(const std::string& name) {
    return *std::ranges::find(tensors, name, &GgufDeclaration::name);
  }

  std::string Write(const std::filesystem::path& path) const {
    GgufWriter writer(path, metadata, tensors);
    for (const GgufDeclaration& tensor : tensors) {
      std::vector<std::byte> bytes(tensor.bytes());
      const auto found = values.find(tensor.name);
      if (found != values.end()) {
        std::vector<float> padded = found->second;
        padded.resize(static_cast<size_t>(tensor.shape.empty() ? 1 : tensor.shape.back()) *
                      static_cast<size_t>(tensor.shape.size() == 2 ? tensor.shape[0] : 1));
        EncodeRow(tensor.type, padded, {}, bytes);
      }
      const auto damage = damaged.find(tensor.name);
      if (damage != damaged.end())
        std::copy_n(damage->second.begin(), damage->second.size(), bytes.begin());
      writer.Write(tensor.name, bytes);
    }
    writer.Finish();
    return path.string();
  }

  std::vector<GgufEntry> metadata;
  std::vector<GgufDeclaration> tensors;
  std::map<std::string, std::vector<float>> values;       // in the order of the file
  std::map<std::string, std::vector<std::byte>> damaged;  // first bytes of a tensor
  std::map<std::string, std::vector<float>> wanted;       // the checkpoint's tensors
};

class GgufModelTest : public testing::Test {
 protected:
  std::string Write(const TinyGguf& tiny) {
    return tiny.Write(folder_ / ("m" + std::to_string(count_++) + ".gguf"));
  }
  void ExpectRefused(const TinyGguf& tiny, std::vector<std::string> parts) {
    const std::string path = Write(tiny);
    parts.push_back(path);
    ExpectError(ErrorCode::kBadInput, parts, [&] { ModelSource::Open(path); });
  }

  test::TempFolder folder_;
  int count_ = 0;
};

std::vector<float> Values(const ModelSource& source, const std::string& name) {
  const ConstMatrix view = source.checkpoint().View(name);
  std::vector<float> values(static_cast<size_t>(view.size()));
  for (int64_t row = 0; row < view.rows; ++row)
    WidenRow(view, row, &values[static_cast<size_t>(row * view.cols)]);
  source.checkpoint().Release(name);
  return values;
}

TEST_F(GgufModelTest, TensorsAndConfigurationAreThoseOfTheCheckpoint) {
  std::vector<json> configs;
  for (const char* name : {"LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}) {
    configs.push_back(TinyConfig(name));
  }
  configs.push_back(TinyConfig("LlamaForCausalLM"));
  configs.back()["attention_bias"] = configs.back()["mlp_bias"] = true;
  configs.back()["tie_word_embeddings"] = true;
  configs.push_back(TinyConfig("LlamaForCausalLM"));
  configs.back()["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 4.0}};
  configs.push_back(TinyConfig("Qwen2ForCausalLM"));
  configs.back()["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 4.0}, {"original_max_position_embeddings", 32}};
  configs.push_back(TinyConfig("LlamaForCausalLM"));
  configs.back()["rope_theta"] = 500000.0;
  configs.back()["rope_scaling"] = {{"rope_type", "llama3"},
                                    {"factor", 32.0},
                                    {"low_freq_factor", 1.0},
                                    {"high_freq_factor", 4.0},
                                    {"original_max_position_embeddings", 8192}};
  for (const json& config : configs) {
    SCOPED_TRACE(config.dump());
    const TinyGguf tiny(config);
    const ModelSource source = ModelSource::Open(Write(tiny));
    json read = source.checkpoint().config();
    for (const auto& [key, value] : config.items()) EXPECT_EQ(read.at(key), value) << key;
    EXPECT_EQ(read.value("torch_dtype", ""), "float16");
    EXPECT_EQ(read.contains("rope_scaling"), config.contains("rope_scaling"));
    EXPECT_EQ(read.value("tie_word_embeddings", false), config.value("tie_word_embeddings", false));
    EXPECT_EQ(source.checkpoint().names().size(), tiny.wanted.size());
    for (const auto& [name, values] : tiny.wanted) {
      EXPECT_EQ(Values(source, name), values) << name;
      EXPECT_EQ(source.checkpoint().Info(name).dtype, "F16") << name;
    }
  }
}

TEST_F(GgufModelTest, TypesOfTheCheckpoint) {
  TinyGguf tiny(TinyConfig("LlamaForCausalLM"));
  tiny.Tensor("blk.0.ffn_up.weight").type = GgmlType::kBf16;
  tiny.Tensor("blk.0.ffn_down.weight").type = GgmlType::kQ4_1;
  tiny.Tensor("blk.0.ffn_gate.weight").type = GgmlType::kF32;
  tiny.values["output_norm.weight"][3] = 1 + 0x1p-20f;  // no F16
  const std::string path = Write(tiny);
  const ModelSource source = ModelSource::Open(path);
  const auto dtype = [](const ModelSource& model, const std::string& name) {
    return model.checkpoint().Info(name).dtype;
  };
  EXPECT_EQ(dtype(source, "model.layers.0.mlp.up_proj.weight"), "BF16");
  EXPECT_EQ(dtype(source, "model.layers.0.mlp.down_proj.weight"), "F16");
  EXPECT_EQ(dtype(source, "model.layers.0.mlp.gate_proj.weight"), "F32");
  EXPECT_EQ(dtype(source, "model.norm.weight"), "F32");
  EXPECT_EQ(dtype(source, "model.layers.0.input_layernorm.weight"), "F16");
  EXPECT_EQ(Values(source, "model.norm.weight")[3], 1 + 0x1p-20f);
  EXPECT_EQ(source.checkpoint().Stored("model.layers.0.mlp.down_proj.weight").type, "Q4_1");
  EXPECT_EQ(source.checkpoint().Stored("model.layers.0.mlp.down_proj.weight").bytes, 32u * 2 * 20);
  const ModelSource wide = ModelSource::Open(path, {.dense = DType::kF32});
  EXPECT_EQ(dtype(wide, "model.layers.0.mlp.down_proj.weight"), "F32");
  // What the file takes does not depend on the type that it is read as.
  EXPECT_EQ(wide.checkpoint().total_bytes(), source.checkpoint().total_bytes());
  // F32 is what the blocks decode to; F16 is that, rounded.
  std::vector<float> exact = Values(wide, "model.layers.0.mlp.down_proj.weight");
  for (float& value : exact) value = RoundTo(DType::kF16, value);
  EXPECT_EQ(Values(source, "model.layers.0.mlp.down_proj.weight"), exact);
}

TEST_F(GgufModelTest, CodesHaveTheValuesOfTheDecodedRows) {
  for (const GgmlType type : {GgmlType::kQ4_0, GgmlType::kQ5_0, GgmlType::kQ8_0}) {
    SCOPED_TRACE(NameOf(type));
    TinyGguf tiny(TinyConfig("LlamaForCausalLM"));
    for (const char* name : {"attn_q", "attn_k", "ffn_down"}) {
      tiny.Tensor("blk.1." + std::string(name) + ".weight").type = type;
    }
    std::fill_n(tiny.values["blk.1.attn_q.weight"].begin(), 32, 0.0f);  // a block of scale 0
    tiny.Tensor("token_embd.weight").type = type;
    const std::string path = Write(tiny);
    const ModelSource source = ModelSource::Open(path);
    const ModelSource dense = ModelSource::Open(path, {.codes = false, .dense = DType::kF32});
    EXPECT_EQ(dense.artifact(), nullptr);
    int quantized = 0;
    for (const LinearSpec* linear : source.spec().Linears()) {
      if (!source.SchemeOf(*linear)) continue;
      ++quantized;
      const QuantizedLinear codes = source.ReadQuantized(*linear);
      CheckConsistent(codes);
      std::vector<float> values(static_cast<size_t>(linear->out * linear->in));
      for (int64_t row = 0; row < linear->out; ++row) {
        DequantizeRow(codes, row, &values[static_cast<size_t>(row * linear->in)]);
      }
      EXPECT_EQ(values, Values(dense, linear->name + ".weight")) << linear->name;
    }
    EXPECT_EQ(quantized, 3);  // the embedding is decoded
    EXPECT_TRUE(source.artifact()->CheckTensors().empty());
  }
}

TEST_F(GgufModelTest, RefusesTensorsThatDoNotFit) {
  const TinyGguf good(TinyConfig("LlamaForCausalLM"));
  TinyGguf tiny = good;
  std::erase_if(tiny.tensors, [](const auto& t) { return t.name == "blk.1.attn_k.weight"; });
  ExpectRefused(tiny, {"'blk.1.attn_k.weight' is missing"});
  tiny = good;
  tiny.tensors.push_back({"blk.0.attn_sinks", GgmlType::kF32, {4}});
  ExpectRefused(tiny, {"'blk.0.attn_sinks'", "belongs to no layer of llama"});
  tiny = good;
  tiny.Tensor("blk.0.ffn_up.weight").shape = {32, 64};
  ExpectRefused(tiny, {"'blk.0.ffn_up.weight'", "[32, 64]", "[64, 32]"});
  tiny = good;
  tiny.Tensor("blk.0.attn_norm.weight").shape = {31};
  ExpectRefused(tiny, {"'blk.0.attn_norm.weight'", "[31]", "[32]"});
  tiny = good;
  tiny.Tensor("blk.0.attn_norm.weight").shape = {};
  ExpectRefused(tiny, {"'blk.0.attn_norm.weight'", "a vector"});
  tiny = good;
  tiny.Tensor("blk.0.ffn_down.weight").type = GgmlType::kI8;
  tiny.values.erase("blk.0.ffn_down.weight");
  ExpectRefused(tiny, {"'blk.0.ffn_down.weight'", "type I8", "not read"});
  tiny = good;
  std::erase_if(tiny.tensors, [](const auto& t) { return t.name == "token_embd.weight"; });
  ExpectRefused(tiny, {"'token_embd.weight' is missing"});
}

TEST_F(GgufModelTest, RefusesMetadataThatDoesNotFit) {
  const TinyGguf good(TinyConfig("LlamaForCausalLM"));
  const auto refused = [&](const std::string& key, GgufValue value,
                           std::vector<std::string> parts) {
    TinyGguf tiny = good;
    tiny.Set(key, std::move(value));
    parts.push_back(key);
    ExpectRefused(tiny, parts);
  };
  refused("general.architecture", std::string("mamba"), {"'mamba'", "llama, qwen2, qwen3"});
  refused("general.type", std::string("adapter"), {"'adapter'"});
  refused("llama.attention.head_count", uint32_t{0}, {"is 0", "no possible size"});
  refused("llama.attention.head_count", int32_t{-4}, {"I32 (-4)"});
  refused("llama.attention.head_count", std::string("4"), {"STRING", "integer"});
  refused("llama.attention.head_count", GgufArray(std::vector<uint32_t>{4, 4}), {"ARRAY of U32"});
  refused("llama.attention.value_length", uint32_t{4}, {"key_length"});
  refused("llama.rope.dimension_count", uint32_t{4}, {"part of each head"});
  refused("llama.vocab_size", uint32_t{11}, {"10 rows"});
  refused("llama.attention.layer_norm_rms_epsilon", uint32_t{1}, {"U32"});
  refused("llama.attention.layer_norm_rms_epsilon", std::numeric_limits<float>::quiet_NaN(),
          {"no finite number"});
  refused("llama.rope.scaling.type", std::string("longrope"), {"longrope"});
  refused("llama.expert_count", uint32_t{8}, {"not known"});
  TinyGguf tiny = good;
  tiny.Remove("llama.block_count");
  ExpectRefused(tiny, {"'llama.block_count' is missing"});
  tiny = good;
  tiny.tensors.push_back({"rope_freqs.weight", GgmlType::kF32, {4}});
  tiny.values["rope_freqs.weight"] = {1, 7, 2, 3};
  ExpectRefused(tiny, {"'rope_freqs.weight'", "no known scaling"});
}

TEST_F(GgufModelTest, RefusesValuesThatAreNoNumbers) {
  TinyGguf tiny(TinyConfig("LlamaForCausalLM"));
  tiny.Tensor("blk.0.attn_q.weight").type = GgmlType::kQ4_0;
  tiny.Tensor("blk.0.ffn_up.weight").type = GgmlType::kQ4_1;
  tiny.damaged["blk.0.attn_q.weight"] = {std::byte{0xFF}, std::byte{0x7E}};  // a NaN for scale
  tiny.damaged["blk.0.ffn_up.weight"] = {std::byte{0x00}, std::byte{0x7C}};  // infinity
  const std::string path = Write(tiny);
  const ModelSource source = ModelSource::Open(path);
  const BlockSpec& block = source.spec().blocks[0];
  ExpectError(ErrorCode::kBadInput, {path, "'blk.0.attn_q.weight'", "scale of block 0", "NaN"},
              [&] { source.ReadQuantized(block.query); });
  ExpectError(ErrorCode::kBadInput, {path, "'blk.0.ffn_up.weight'", "[0, 0]", "damaged"},
              [&] { source.DenseWeight(block.up); });
  EXPECT_EQ(source.artifact()->CheckTensors().size(), 2u);
}

TEST_F(GgufModelTest, RefusesValuesThatTheTypeDoesNotReach) {
  TinyGguf tiny(TinyConfig("LlamaForCausalLM"));
  tiny.Tensor("blk.0.ffn_up.weight").type = GgmlType::kQ4_1;
  tiny.values["blk.0.ffn_up.weight"][40] = 1e5f;
  const std::string path = Write(tiny);
  const ModelSource source = ModelSource::Open(path);
  ExpectError(ErrorCode::kBadInput, {"'blk.0.ffn_up.weight'", "F16 does not reach"},
              [&] { source.DenseWeight(source.spec().blocks[0].up); });
  const ModelSource wide = ModelSource::Open(path, {.dense = DType::kBF16});
  EXPECT_EQ(wide.DenseWeight(wide.spec().blocks[0].up).view().rows, 64);
}

TEST_F(GgufModelTest, TheVocabularyHasATokenForEachRow) {
  TinyGguf tiny(TinyConfig("LlamaForCausalLM"));
  tiny.Set("tokenizer.ggml.tokens", GgufArray(std::vector<std::string>(kVocab + 1, "a")));
  ExpectRefused(tiny, {"tokenizer.ggml.tokens", "11 tokens", "10 rows"});
}

// What cannot be read of a tokenizer is told to who needs it.
TEST_F(GgufModelTest, ATokenizerIsMissedWhenItIsAskedFor) {
  TinyGguf tiny(TinyConfig("LlamaForCausalLM"));
  tiny.Set("tokenizer.ggml.model", std::string("bert"));
  const ModelSource source = ModelSource::Open(Write(tiny));
  EXPECT_FALSE(source.checkpoint().HasFile("tokenizer.json"));
  ExpectError(ErrorCode::kBadInput, {"tokenizer.ggml.tokens"},
              [&] { source.checkpoint().ReadFile("tokenizer.json"); });
}

TEST_F(GgufModelTest, PartsOfASplitModel) {
  const TinyGguf whole(TinyConfig("LlamaForCausalLM"));
  const auto part = [&](uint16_t number, uint16_t count) {
    TinyGguf tiny = whole;
    if (number > 0) tiny.metadata.clear();
    tiny.Set("split.no", number);
    tiny.Set("split.count", count);
    tiny.Set("split.tensors.count", static_cast<int32_t>(whole.tensors.size()));
    const auto third = static_cast<std::ptrdiff_t>(whole.tensors.size() / 3);
    const auto begin = whole.tensors.begin();
    tiny.tensors = {begin + number * third,
                    number == 2 ? whole.tensors.end() : begin + (number + 1) * third};
    return tiny;
  };
  for (uint16_t number = 0; number < 3; ++number) {
    part(number, 3).Write(folder_ / ("m-0000" + std::to_string(number + 1) + "-of-00003.gguf"));
  }
  const std::string first = (folder_ / "m-00001-of-00003.gguf").string();
  {
    const ModelSource source = ModelSource::Open(first);
    EXPECT_EQ(source.checkpoint().weight_files().size(), 3u);
    for (const auto& [name, values] : whole.wanted) EXPECT_EQ(Values(source, name), values) << name;
  }
  const std::filesystem::path second = folder_ / "m-00002-of-00003.gguf";
  ExpectError(ErrorCode::kBadInput, {"part 2 of 3", "first part"},
              [&] { ModelSource::Open(second.string()); });
  std::filesystem::remove(second);
  ExpectError(ErrorCode::kBadInput, {"m-00002-of-00003.gguf", "missing"},
              [&] { ModelSource::Open(first); });
  part(1, 4).Write(second);
  ExpectError(ErrorCode::kBadInput, {"m-00002-of-00003.gguf", "another model"},
              [&] { ModelSource::Open(first); });
  std::filesystem::remove(second);
  TinyGguf again = part(1, 3);
  again.tensors.push_back(whole.tensors.back());
  again.Write(second);
  ExpectError(ErrorCode::kBadInput, {"is also in"}, [&] { ModelSource::Open(first); });
  std::filesystem::remove(second);
  again = part(1, 3);
  again.tensors.pop_back();
  again.Write(second);
  ExpectError(ErrorCode::kBadInput, {"split.tensors.count"}, [&] { ModelSource::Open(first); });
  std::filesystem::copy_file(first, folder_ / "other.gguf");
  ExpectError(ErrorCode::kBadInput, {"does not end in -00001-of-00003.gguf"},
              [&] { ModelSource::Open((folder_ / "other.gguf").string()); });
}

TEST_F(GgufModelTest, WhatIsNoGgufFile) {
  for (const std::string_view text : {"", "GGU", "GGUF", "not a model"}) {
    test::WriteFile(folder_ / "bad.gguf", text);
    ExpectError(ErrorCode::kBadInput, {"bad.gguf"},
                [&] { ModelSource::Open((folder_ / "bad.gguf").string()); });
  }
  EXPECT_FALSE(IsGguf(folder_.path().string()));
  EXPECT_FALSE(IsGguf((folder_ / "none.gguf").string()));
}

}  // namespace
}  // namespace quantmill
