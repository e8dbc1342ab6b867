// Published tokenizers and texts, which are not part of this repository:
//   QUANTMILL_DATA      folder with tokenizers/ (gpt2.tokenizer.json,
//   gpt-neox-pythia.tokenizer.json,
//                       qwen2.vocab.json, qwen2.merges.txt, qwen2.tokenizer_config.json and the
//                       ggml-vocab-*.gguf.inp/.out of llama.cpp) and text/wikitext2-test.joined.txt
//   QUANTMILL_SMOLLM2   folder of a SmolLM2 checkpoint
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "formats/json.h"
#include "formats/tokenizer/tokenizer.h"
#include "golden.h"

namespace quantmill {
namespace {

using nlohmann::json;

constexpr size_t kJoinedWikiTextBytes = 1296370;
constexpr size_t kSmolLm2Tokens = 304978;

class Vectors : public testing::Test {
 protected:
  void SetUp() override {
    const char* data = std::getenv("QUANTMILL_DATA");
    if (data == nullptr) GTEST_SKIP() << "set QUANTMILL_DATA to run the published vectors";
    data_ = data;
  }

  std::string Tokenizers(const std::string& name) const { return data_ + "/tokenizers/" + name; }

  // The texts of llama.cpp's vocabulary tests and their ids, one line a text.
  void Check(const Tokenizer& tokenizer, const std::string& name) const {
    const std::string separator = "\n__ggml_vocab_test__\n";
    const std::string input = ReadWhole(Tokenizers(name + ".inp"));
    std::istringstream output(ReadWhole(Tokenizers(name + ".out")));
    size_t begin = 0;
    size_t count = 0;
    for (size_t end = 0; end != std::string::npos; begin = end + separator.size(), ++count) {
      end = input.find(separator, begin);
      if (end == std::string::npos) break;  // nothing follows the last separator
      const std::string text = input.substr(begin, end - begin);
      std::string line;
      ASSERT_TRUE(std::getline(output, line)) << "too few lines of ids";
      std::istringstream numbers(line);
      std::vector<int32_t> want;
      for (int32_t id; numbers >> id;) want.push_back(id);
      EXPECT_EQ(tokenizer.Encode(text, false), want) << testing::PrintToString(text);
    }
    EXPECT_GT(count, 40u);
  }

  std::string data_;
};

// Qwen2's vocabulary files as the tokenizer.json that transformers makes of them.
std::string Qwen2Json(const std::string& folder) {
  json model = {{"type", "BPE"}};
  model["vocab"] = ReadJsonFile(folder + "qwen2.vocab.json");
  std::istringstream merges(ReadWhole(folder + "qwen2.merges.txt"));
  model["merges"] = json::array();
  for (std::string line; std::getline(merges, line);) {
    if (!line.empty()) model["merges"].push_back(line);
  }
  const json config = ReadJsonFile(folder + "qwen2.tokenizer_config.json");
  json added = json::array();
  for (const auto& [id, token] : config["added_tokens_decoder"].items()) {
    added.push_back(token);
    added.back()["id"] = std::stoi(id);
  }
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const char* pattern =
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
      "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
      "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
  const json split = {{"type", "Split"},
                      {"pattern", {{"Regex", pattern}}},
                      {"behavior", "Isolated"},
                      {"invert", false}};
  const json parts = json::array({split, byte_level});
  return json{{"version", "1.0"},
              {"added_tokens", added},
              {"normalizer", {{"type", "NFC"}}},
              {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", parts}}},
              {"decoder", byte_level},
              {"model", model}}
      .dump();
}

TEST_F(Vectors, Gpt2) {
  Check(Tokenizer::FromFile(Tokenizers("gpt2.tokenizer.json")), "ggml-vocab-gpt-2.gguf");
}

TEST_F(Vectors, Qwen2) {
  Check(Tokenizer::FromJson(Qwen2Json(Tokenizers("")), "qwen2"), "ggml-vocab-qwen2.gguf");
}

TEST_F(Vectors, PythiaLoadsAndRoundTrips) {
  const Tokenizer tokenizer = Tokenizer::FromFile(Tokenizers("gpt-neox-pythia.tokenizer.json"));
  EXPECT_EQ(tokenizer.vocab_size(), 50278);
  const std::string text = "Hello  world,\n    it's 12345.\u3042";
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text, true), true), text);
}

TEST_F(Vectors, SmolLm2TokenizesWikiText) {
  const char* folder = std::getenv("QUANTMILL_SMOLLM2");
  if (folder == nullptr) GTEST_SKIP() << "set QUANTMILL_SMOLLM2 to a SmolLM2 checkpoint folder";
  const Tokenizer tokenizer = Tokenizer::FromFile(std::string(folder) + "/tokenizer.json");
  const std::string text = ReadWhole(data_ + "/text/wikitext2-test.joined.txt");
  ASSERT_EQ(text.size(), kJoinedWikiTextBytes) << "another text";
  const std::vector<int32_t> ids = tokenizer.Encode(text, true);
  EXPECT_EQ(ids.size(), kSmolLm2Tokens);
  EXPECT_EQ(tokenizer.Decode(ids, false), text);
}

}  // namespace
}  // namespace quantmill
