// tokenizer.json: what is accepted and what is refused.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "formats/json.h"
#include "formats/tokenizer/tokenizer.h"
#include "golden.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

using nlohmann::json;

// A small file that has every kind of field.
json Small() {
  return ParseJson(R"({
    "version": "1.0", "truncation": null, "padding": null,
    "added_tokens": [{"id": 4, "content": "<s>", "single_word": false, "lstrip": false,
                      "rstrip": true, "normalized": false, "special": true}],
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "NFC"}, {"type": "Replace", "pattern": {"String": " "}, "content": "_"}]},
    "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "_?[ab]+"}, "behavior": "Isolated",
                      "invert": false},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                 {"Sequence": {"id": "A", "type_id": 0}}],
      "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [4], "tokens": ["<s>"]}}},
    "decoder": {"type": "Replace", "pattern": {"String": "_"}, "content": " "},
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "fuse_unk": false,
              "vocab": {"a": 0, "b": 1, "_": 2, "ab": 3}, "merges": ["a b"]}})",
                   "test");
}

Tokenizer Load(const json& file) { return Tokenizer::FromJson(file.dump(), "small.json"); }

// The error of a file with `value` at `pointer`; empty when there is none.
std::string ErrorOf(const char* pointer, const char* value) {
  json file = Small();
  file[json::json_pointer(pointer)] = ParseJson(value, "test");
  try {
    Load(file);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_EQ(error.where().rfind("small.json", 0), 0u) << error.where();
    return error.what();
  }
  return "";
}

TEST(TokenizerJson, ReadsBothFormsOfMerges) {
  const std::vector<int32_t> want = {4, 3, 2, 0};
  json file = Small();
  EXPECT_EQ(Load(file).Encode("ab a", true), want);
  file["model"]["merges"] = ParseJson(R"([["a", "b"]])", "test");
  EXPECT_EQ(Load(file).Encode("ab a", true), want);
  EXPECT_EQ(Load(file).Decode(want, true), "ab a");
  EXPECT_EQ(Load(file).Decode(want, false), "<s>ab a");
  EXPECT_EQ(Load(file).vocab_size(), 5);
  EXPECT_EQ(Load(file).TokenToId("nothing"), std::nullopt);
  EXPECT_THROW(static_cast<void>(Load(file).IdToToken(5)), Error);
  EXPECT_THROW(static_cast<void>(Load(file).IdToToken(-1)), Error);
  EXPECT_THROW(Load(file).Decode(std::vector<int32_t>{5}, false), Error);
}

TEST(TokenizerJson, PairsMayHoldSpaces) {
  json file = Small();
  file["normalizer"] = nullptr;
  file["pre_tokenizer"] = nullptr;
  file["model"]["vocab"] = {{"a", 0}, {"b", 1}, {" ", 2}, {" a", 3}};
  file["model"]["merges"] = ParseJson(R"([[" ", "a"]])", "test");
  EXPECT_EQ(Load(file).Encode("b a", false), (std::vector<int32_t>{1, 3}));
  file["model"]["merges"] = {"  a"};  // two spaces: which one divides?
  EXPECT_THROW(Load(file), Error);
}

TEST(TokenizerJson, NamesTheComponentThatItDoesNotKnow) {
  const std::vector<std::vector<const char*>> cases = {
      {"/normalizer/normalizers/1", R"({"type": "Precompiled"})", "normalizers[1]"},
      {"/normalizer/normalizers/0", R"({"type": "NFC", "extra": 1})", "extra"},
      {"/pre_tokenizer", R"({"type": "BertPreTokenizer"})", "BertPreTokenizer"},
      {"/pre_tokenizer/behavior", R"("Sideways")", "Sideways"},
      {"/pre_tokenizer/pattern", R"j({"Regex": "(?<n>a)"})j", "pre_tokenizer"},
      {"/pre_tokenizer/pattern", R"({"String": ""})", "pattern"},
      {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "ab"})", "replacement"},
      {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "last"})",
       "last"},
      {"/pre_tokenizer",
       R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first",
           "add_prefix_space": false})",
       "add_prefix_space"},
      {"/post_processor", R"({"type": "Unheard"})", "Unheard"},
      {"/post_processor/single/0/SpecialToken/id", R"("<x>")", "<x>"},
      {"/post_processor/single/1/Sequence/id", R"("B")", "Sequence"},
      {"/post_processor/special_tokens/<s>/ids", "[9]", "9"},
      {"/decoder", R"({"type": "WordPiece"})", "WordPiece"},
      {"/model/type", R"("Unigram")", "Unigram"},
      {"/model/dropout", "0.1", "dropout"},
      {"/model/merges", R"(["a c"])", "\"c\""},
      {"/model/merges", R"(["ab"])", "\"ab\""},
      {"/model/merges", R"(["a b", ["a", "b"]])", "mixed"},
      {"/model/merges", R"([["a", "b", "c"]])", "merge"},
      {"/model/merges", R"([["a"]])", "merge"},
      {"/model/merges", "[1]", "merges"},
      {"/model/vocab", R"({"a": 0, "b": 0})", "same id"},
      {"/model/vocab", R"({"a": -1})", "-1"},
      {"/model/vocab", R"({"a": 4000000000})", "4000000000"},
      {"/model/vocab", R"({"a": 1.5})", "\"a\""},
      {"/model/vocab", "[]", "vocab"},
      {"/model/unheard", "1", "unheard"},
      {"/added_tokens/0/id", "5", "<s>"},
      {"/added_tokens/0/content", R"("")", "empty"},
      {"/added_tokens/0/lstrip", "1", "lstrip"},
      {"/version", R"("2.0")", "2.0"},
      {"/unheard", "{}", "unheard"},
  };
  for (const auto& item : cases) {
    const std::string error = ErrorOf(item[0], item[1]);
    EXPECT_NE(error.find(item[2]), std::string::npos) << item[0] << " " << item[1] << ": " << error;
  }
}

TEST(TokenizerJson, RefusesAnUnknownStartOfTheText) {
  const char* metaspace = R"({"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"})";
  EXPECT_EQ(ErrorOf("/pre_tokenizer", metaspace), "");
  json file = Small();
  file["pre_tokenizer"] = ParseJson(metaspace, "test");
  file["normalizer"] =
      ParseJson(R"({"type": "Strip", "strip_left": true, "strip_right": true})", "test");
  EXPECT_THROW(Load(file), Error);
}

TEST(TokenizerJson, RefusesBadJson) {
  const std::string good = Small().dump();
  const std::vector<std::string> texts = {"",
                                          "[]",
                                          "null",
                                          good + "x",
                                          R"({"version":"1.0"})",
                                          R"({"version":"1.0",)" + good.substr(1),
                                          std::string(100000, '['),
                                          "{\"a\":\"\xFF\"}"};
  for (const std::string& text : texts) {
    EXPECT_THROW(Tokenizer::FromJson(text, "bad"), Error) << text.substr(0, 40);
  }
  EXPECT_THROW(Tokenizer::FromFile("/nowhere/tokenizer.json"), Error);
}

TEST(TokenizerJson, RefusesEveryTruncation) {
  for (const std::string& good : {Small().dump(), ReadWhole(GoldenPath("llama3.json"))}) {
    const size_t end = good.find_last_of('}');
    for (size_t length = 0; length <= end; length += length < 4000 ? 1 : 7) {
      const std::string cut = good.substr(0, length);
      EXPECT_THROW(Tokenizer::FromJson(cut, "cut"), Error) << length;
    }
  }
}

// Any one byte changed: an Error, or a tokenizer that works.
TEST(TokenizerJson, SurvivesEveryMutation) {
  const std::string good = Small().dump();
  int loaded = 0;
  for (size_t i = 0; i < good.size(); ++i) {
    for (const int change : {1, 2, 4, 16, 32, 128, 0x100 + '"', 0x100 + '9', 0x100 + '{'}) {
      std::string bad = good;
      bad[i] = static_cast<char>(change >= 0x100 ? change : bad[i] ^ change);
      try {
        const Tokenizer tokenizer = Tokenizer::FromJson(bad, "mutated");
        const std::vector<int32_t> ids = tokenizer.Encode("<s>ab ba  \u00E9", true);
        for (const int32_t id : ids) EXPECT_LT(id, tokenizer.vocab_size());
        tokenizer.Decode(ids, true);
        ++loaded;
      } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      }
    }
  }
  EXPECT_GT(loaded, 0);
}

TEST(Tokenizer, RefusesIllFormedText) {
  const Tokenizer tokenizer = Load(Small());
  try {
    tokenizer.Encode("ab\xFF", false);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("byte 2"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace quantmill
