#include <cmath>

#include "formats/gguf/codec.h"
#include "formats/gguf/repack.h"
#include "formats/gguf/vocabulary.h"
#include "formats/single_file_output.h"
#include "tests/formats/gguf_test_util.h"

namespace quantmill::test {
namespace {

using testing::ElementsAre;

QuantizedModule Module(int bits, int64_t group_size, int64_t in) {
  QuantizedModule module{"layer", {}, 2, in};
  module.scheme.bits = bits;
  module.scheme.group_size = group_size;
  return module;
}

// Every code, a negative scale, two blocks of one group.
QuantizedLinear Linear(const QuantizedModule& module) {
  QuantizedLinear linear{module.scheme, module.out, module.in, {}, {}, {}, 1, 0, 0};
  const int range = module.scheme.max_code() - module.scheme.min_code() + 1;
  for (int64_t i = 0; i < module.out * module.in; ++i) {
    linear.codes.push_back(
        static_cast<int8_t>(module.scheme.min_code() + static_cast<int>(7 * i) % range));
  }
  for (int64_t i = 0; i < module.out * linear.groups(); ++i) {
    linear.scales.push_back(i % 2 == 0 ? 0.125f * static_cast<float>(i + 1) : -0x1p-24f);
  }
  return linear;
}

TEST(GgufRepack, EveryValueIsKept) {
  const std::vector<std::pair<QuantizedModule, GgmlType>> cases = {
      {Module(2, 32, 64), GgmlType::kQ4_0},
      {Module(4, 32, 64), GgmlType::kQ4_0},
      {Module(4, 64, 128), GgmlType::kQ4_0},
      {Module(5, 32, 64), GgmlType::kQ5_0},
      {Module(8, 32, 512), GgmlType::kQ8_0},
      {Module(8, QuantScheme::kPerChannel, 96), GgmlType::kQ8_0}};
  for (const auto& [module, type] : cases) {
    ASSERT_EQ(BlockTypeFor(module), type);
    const QuantizedLinear linear = Linear(module);
    for (int64_t row = 0; row < module.out; ++row) {
      std::vector<std::byte> bytes(*RowBytes(type, module.in));
      RepackRow(linear, row, type, "layer", bytes);
      std::vector<float> got(static_cast<size_t>(module.in));
      std::vector<float> want(got.size());
      DecodeRow(type, bytes, got);
      DequantizeRow(linear, row, want.data());
      EXPECT_EQ(got, want);
    }
  }
}

// Every E2M1 number, the smallest and the largest power of two.
TEST(GgufRepack, Mxfp4IsKept) {
  QuantizedModule module = Module(4, 32, 64);
  module.scheme.code_type = CodeType::kFp4;
  module.scheme.scale_dtype = DType::kF8E8M0;
  ASSERT_EQ(BlockTypeFor(module), GgmlType::kMxfp4);
  QuantizedLinear linear{module.scheme, 2, 64, {}, {0x1p-127f, 0.5f, 1, 0x1p124f}, {}, 1, 0, 0};
  for (int i = 0; i < 128; ++i) linear.codes.push_back(static_cast<int8_t>(i % 16));
  for (int64_t row = 0; row < 2; ++row) {
    std::vector<std::byte> bytes(2 * 17);
    RepackRow(linear, row, GgmlType::kMxfp4, "layer", bytes);
    EXPECT_EQ(std::to_integer<int>(bytes[0]), row == 0 ? 0 : 127);
    EXPECT_EQ(std::to_integer<int>(bytes[17]), row == 0 ? 126 : 251);
    EXPECT_EQ(std::to_integer<int>(bytes[1]), 0x00);  // elements 0 and 16
    EXPECT_EQ(std::to_integer<int>(bytes[16]), 0xFF);
    std::vector<float> got(64);
    std::vector<float> want(64);
    DecodeRow(GgmlType::kMxfp4, bytes, got);
    DequantizeRow(linear, row, want.data());
    EXPECT_EQ(got, want);
  }
  linear.scales[0] = 3;
  std::vector<std::byte> bytes(2 * 17);
  ExpectError(ErrorCode::kUsage, {"layer", "scale 0 of output 0", "MXFP4"},
              [&] { RepackRow(linear, 0, GgmlType::kMxfp4, "layer", bytes); });
}

TEST(GgufRepack, GoldenBytes) {
  QuantizedModule module = Module(4, 32, 32);
  module.out = 1;
  QuantizedLinear linear{module.scheme, 1, 32, std::vector<int8_t>(32, 0), {0.5f}, {}, 1, 0, 0};
  linear.codes[0] = -8;
  linear.codes[16] = 7;
  linear.codes[31] = 1;
  std::vector<std::byte> bytes(18);
  RepackRow(linear, 0, GgmlType::kQ4_0, "layer", bytes);
  std::vector<int> values;
  for (const std::byte byte : bytes) values.push_back(std::to_integer<int>(byte));
  EXPECT_THAT(values, ElementsAre(0x00, 0x38, 0xF0, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x88,
                                  0x88, 0x88, 0x88, 0x88, 0x88, 0x88, 0x98));
}

TEST(GgufRepack, RefusesWhatBlocksDoNotHold) {
  const auto refused = [](QuantizedModule module, const char* word) {
    ExpectError(ErrorCode::kUsage, {"layer", word}, [&] { BlockTypeFor(module); });
  };
  refused(Module(4, 48, 96), "blocks of 32");
  refused(Module(4, 16, 64), "blocks of 32");
  QuantizedModule module = Module(4, 32, 64);
  module.scheme.symmetric = false;
  refused(module, "zero points");
  module = Module(8, 32, 64);
  module.scheme.input.type = InputScheme::Type::kInt8;
  refused(module, "inputs");
  module = Module(8, 32, 64);
  module.scheme.code_type = CodeType::kFp8;
  refused(module, "floats");
  module = Module(4, 32, 64);
  module.scheme.code_type = CodeType::kFp4;
  module.scheme.scale_dtype = DType::kF8E4M3;  // NVFP4
  refused(module, "floats");
  module = Module(4, 32, 32);
  QuantizedLinear linear = Linear(module);
  linear.scales[1] = 0.1f;  // no F16
  std::vector<std::byte> bytes(18);
  ExpectError(ErrorCode::kUsage, {"layer", "scale 0 of output 1"},
              [&] { RepackRow(linear, 1, GgmlType::kQ4_0, "layer", bytes); });
}

constexpr std::string_view kTokenizer = R"({"version": "1.0", "added_tokens": [
  {"id": 0, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": false,
   "normalized": false, "special": true}],
  "normalizer": null, "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false,
  "trim_offsets": true, "use_regex": true}, "post_processor": {"type": "TemplateProcessing",
  "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
  "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}},
  "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
  "use_regex": true}, "model": {"type": "BPE", "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3},
  "merges": ["a b"]}})";

TEST(GgufVocabulary, OfByteLevelBpe) {
  TempFolder folder;
  WriteModelWithoutTensors(folder.path());
  const Checkpoint model = Checkpoint::Open(folder.path().string());
  ExpectError(ErrorCode::kBadInput, {"tokenizer.json", "missing"},
              [&] { DescribeVocabulary(model, 5, ""); });
  WriteFile(folder / "tokenizer.json", kTokenizer);
  WriteFile(folder / "tokenizer_config.json",
            R"({"bos_token": "<s>", "eos_token": {"content": "b"}, "chat_template": "{{ x }}"})");
  const GgufMetadata metadata(DescribeVocabulary(model, 5, ""), "file");
  EXPECT_EQ(*metadata.Text("tokenizer.ggml.model"), "gpt2");
  EXPECT_EQ(*metadata.Text("tokenizer.ggml.pre"), "gpt-2");
  EXPECT_THAT(*metadata.Array<std::string>("tokenizer.ggml.tokens"),
              ElementsAre("<s>", "a", "b", "ab", "[PAD4]"));
  EXPECT_THAT(*metadata.Array<int32_t>("tokenizer.ggml.token_type"), ElementsAre(3, 1, 1, 1, 5));
  EXPECT_THAT(*metadata.Array<std::string>("tokenizer.ggml.merges"), ElementsAre("a b"));
  EXPECT_EQ(metadata.Unsigned("tokenizer.ggml.bos_token_id"), 0u);
  EXPECT_EQ(metadata.Unsigned("tokenizer.ggml.eos_token_id"), 2u);
  EXPECT_EQ(metadata.Bool("tokenizer.ggml.add_bos_token"), true);
  EXPECT_EQ(metadata.Bool("tokenizer.ggml.add_eos_token"), false);
  EXPECT_EQ(*metadata.Text("tokenizer.chat_template"), "{{ x }}");
  ExpectError(ErrorCode::kBadInput, {"4 tokens", "3 rows"},
              [&] { DescribeVocabulary(model, 3, ""); });
}

// --force would not help: what is wrong is the name.
TEST(SingleFileOutput, AFolderIsNoNameForAFile) {
  const TempFolder folder;
  for (const bool force : {false, true}) {
    ExpectError(ErrorCode::kUsage, {"is a folder"},
                [&] { SingleFileOutput(folder.path(), force, "GGUF"); });
  }
}

TEST(SingleFileOutput, AppearsOnCommitOnly) {
  TempFolder folder;
  {
    SingleFileOutput out(folder / "a.gguf", false, "GGUF");
    WriteFile(out.path(), "GGUF1");
    EXPECT_TRUE(out.path().filename().string().starts_with(".a.gguf.partial-"));
  }
  EXPECT_THAT(List(folder.path()), testing::IsEmpty());
  for (const char* text : {"GGUF1", "GGUF2"}) {
    SingleFileOutput out(folder / "a.gguf", true, "GGUF");
    WriteFile(out.path(), text);
    out.Commit();
    EXPECT_EQ(ReadFile(folder / "a.gguf"), text);
  }
  ExpectError(ErrorCode::kUsage, {"exists already", "--force"},
              [&] { SingleFileOutput(folder / "a.gguf", false, "GGUF"); });
  WriteFile(folder / "b.gguf", "something else");
  ExpectError(ErrorCode::kUsage, {"another kind"},
              [&] { SingleFileOutput(folder / "b.gguf", true, "GGUF"); });
  EXPECT_THAT(List(folder.path()), ElementsAre("a.gguf", "b.gguf"));
}

}  // namespace
}  // namespace quantmill::test
