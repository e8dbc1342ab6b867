// Whole tokenizers against the reference library, on files made by make_golden.py.
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "formats/tokenizer/stream_decoder.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/unicode.h"
#include "golden.h"

namespace quantmill {
namespace {

class GoldenTokenizer : public testing::TestWithParam<const char*> {
 protected:
  Tokenizer tokenizer_ = Tokenizer::FromFile(GoldenPath(std::string(GetParam()) + ".json"));
  nlohmann::json cases_ = ReadGolden(std::string(GetParam()) + ".cases.json");
};

// Random text of `length` code points: letters, white space and any scalar value.
std::string RandomText(std::mt19937_64& random, size_t length) {
  std::string text;
  for (size_t i = 0; i < length; ++i) {
    const uint64_t draw = random();
    char32_t c = static_cast<char32_t>(draw % 0x110000);
    if (draw >> 62 == 0) c = static_cast<char32_t>('a' + draw % 26);
    if (draw >> 62 == 1) c = draw % 3 == 0 ? U'\n' : U' ';
    if (c >= 0xD800 && c < 0xE000) c = 0x3042;
    AppendUtf8(c, text);
  }
  return text;
}

std::string Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip) {
  StreamDecoder decoder(tokenizer, skip);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = decoder.Next(id);
    EXPECT_FALSE(FindInvalidUtf8(part)) << "an unfinished code point after id " << id;
    text += part;
  }
  return text + decoder.Flush();
}

TEST_P(GoldenTokenizer, EncodesAndDecodesLikeTheReferenceLibrary) {
  for (const auto& item : cases_) {
    const auto text = item["text"].get<std::string>();
    SCOPED_TRACE(testing::PrintToString(text));
    const auto ids = item["ids_special"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_.Encode(text, false), item["ids"].get<std::vector<int32_t>>());
    EXPECT_EQ(tokenizer_.Encode(text, true), ids);
    EXPECT_EQ(tokenizer_.Decode(ids, false), item["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer_.Decode(ids, true), item["decoded_skip"].get<std::string>());
  }
}

TEST_P(GoldenTokenizer, StreamsTheSameText) {
  std::mt19937_64 random(1);
  std::uniform_int_distribution<int32_t> id_of(0,
                                               static_cast<int32_t>(tokenizer_.vocab_size()) - 1);
  for (int round = 0; round < 200; ++round) {
    std::vector<int32_t> ids(static_cast<size_t>(round % 30));
    for (int32_t& id : ids) id = id_of(random);
    EXPECT_EQ(Stream(tokenizer_, ids, false), tokenizer_.Decode(ids, false));
    EXPECT_EQ(Stream(tokenizer_, ids, true), tokenizer_.Decode(ids, true));
  }
}

TEST_P(GoldenTokenizer, GivesTheSameIdsFromEveryThread) {
  std::mt19937_64 random(2);
  const std::string text = RandomText(random, 2000);
  const std::vector<int32_t> want = tokenizer_.Encode(text, true);
  std::vector<std::vector<int32_t>> got(4);
  std::vector<std::thread> threads;
  threads.reserve(got.size());
  for (auto& ids : got) threads.emplace_back([&] { ids = tokenizer_.Encode(text, true); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& ids : got) EXPECT_EQ(ids, want);
}

TEST_P(GoldenTokenizer, NamesEveryTokenAndFindsItAgain) {
  for (int32_t id = 0; id < tokenizer_.vocab_size(); ++id) {
    EXPECT_EQ(tokenizer_.TokenToId(tokenizer_.IdToToken(id)), id);
  }
}

INSTANTIATE_TEST_SUITE_P(All, GoldenTokenizer,
                         testing::Values("gpt2", "smollm", "neox", "llama3", "qwen2", "llama2",
                                         "mistral", "metaspace_split", "gemma"));

TEST(ByteLevelTokenizer, DecodesWhatItEncoded) {
  std::mt19937_64 random(3);
  for (const char* name : {"gpt2", "smollm", "llama3"}) {
    const Tokenizer tokenizer = Tokenizer::FromFile(GoldenPath(std::string(name) + ".json"));
    for (size_t length = 0; length < 200; ++length) {
      const std::string text = RandomText(random, length);
      EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text, false), false), text) << name;
    }
  }
}

}  // namespace
}  // namespace quantmill
