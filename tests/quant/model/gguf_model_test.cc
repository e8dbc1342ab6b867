// GGUF files as models: written here by hand, read as the checkpoint that they stand for.
#include "quant/model/gguf_model.h"

#include <gmock/gmock.h>

#include <limits>

#include "tests/formats/artifact_test_util.h"
#include "tests/quant/model/tiny_gguf.h"

namespace quantmill::test {
namespace {

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
  for (const GgmlType type :
       {GgmlType::kQ4_0, GgmlType::kQ5_0, GgmlType::kQ8_0, GgmlType::kMxfp4}) {
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
      ExpectRowsAsRead(*source.artifact(), linear->name);
    }
    EXPECT_EQ(quantized, 3);  // the embedding is decoded
    EXPECT_TRUE(source.artifact()->CheckTensors().empty());
  }
}

// Each expert has its own rows of the stack, quantized or not.
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
  ExpectRefused(tiny, {"'blk.0.attn_norm.weight'", "[]", "[32]"});
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
  refused("general.architecture", std::string("mamba"),
          {"'mamba'", "bloom, falcon, gemma2", "llama, phi3, qwen2, qwen2moe, qwen3, qwen3moe"});
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
  refused("llama.expert_shared_count", uint32_t{1}, {"not known"});
  TinyGguf tiny = good;
  tiny.Set("llama.expert_count", uint32_t{8});
  ExpectRefused(tiny, {"'llama.expert_used_count' is missing"});
  tiny = good;
  tiny.Remove("llama.block_count");
  ExpectRefused(tiny, {"'llama.block_count' is missing"});
  tiny = good;
  tiny.tensors.push_back({"rope_freqs.weight", GgmlType::kF32, {4}});
  tiny.values["rope_freqs.weight"] = {1, 7, 2, 3};
  ExpectRefused(tiny, {"'rope_freqs.weight'", "no known scaling"});
}

// Divisors tell the original context, or keep the frequencies apart in some way.
// What is stored transposed, and quantized, has its codes by output.
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
    WriteFile(folder_ / "bad.gguf", text);
    ExpectError(ErrorCode::kBadInput, {"bad.gguf"},
                [&] { ModelSource::Open((folder_ / "bad.gguf").string()); });
  }
  EXPECT_FALSE(IsGguf(folder_.path().string()));
  EXPECT_FALSE(IsGguf((folder_ / "none.gguf").string()));
}

}  // namespace
}  // namespace quantmill::test
