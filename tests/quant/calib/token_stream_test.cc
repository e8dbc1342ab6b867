#include "quant/calib/token_stream.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <numeric>

namespace quantmill {
namespace {

std::vector<int32_t> Count(int32_t n) {
  std::vector<int32_t> ids(static_cast<size_t>(n));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TEST(CutCalibrationWindows, FirstOnesByDefault) {
  const TokenWindows windows = CutCalibrationWindows(Count(35), 3, 10, {});
  EXPECT_EQ(windows.count(), 3);
  EXPECT_EQ(windows.ids, Count(30));
}

TEST(CutCalibrationWindows, SeedDrawsDistinctWholeWindows) {
  const TokenWindows a = CutCalibrationWindows(Count(1000), 20, 10, 5);
  EXPECT_EQ(a.ids, CutCalibrationWindows(Count(1000), 20, 10, 5).ids);
  EXPECT_NE(a.ids, CutCalibrationWindows(Count(1000), 20, 10, 6).ids);
  for (int64_t w = 0; w < 20; ++w) {
    const int32_t first = a.ids[static_cast<size_t>(w * 10)];
    EXPECT_EQ(first % 10, 0);
    if (w > 0) {
      EXPECT_GT(first, a.ids[static_cast<size_t>((w - 1) * 10)]);
    }
  }
  // All of them, when as many are asked for as there are.
  EXPECT_EQ(CutCalibrationWindows(Count(50), 5, 10, 3).ids, Count(50));
}

TEST(CutCalibrationWindows, TooShortSaysHowManyThereAre) {
  try {
    CutCalibrationWindows(Count(35), 4, 10, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kBadInput);
    EXPECT_NE(error.message().find("3 windows"), std::string::npos) << error.message();
  }
  EXPECT_THROW(CutCalibrationWindows(Count(35), 0, 10, {}), Error);
  EXPECT_THROW(CutCalibrationWindows(Count(35), 1, 1, {}), Error);
}

TEST(HashTokens, IsOfLittleEndianInt32) {
  // sha256 of 01 00 00 00 02 00 00 00.
  EXPECT_EQ(HashTokens({1, 2}), "34fb5c825de7ca4aea6e712f19d439c1da0c92c37b423936c5f618545ca4fa1f");
}

// Tests run in the source root.
class TokenStreamTest : public testing::Test {
 protected:
  TokenStreamTest()
      : source_(ModelSource::Open("calib_data/sample_model")), tokenizer_(OpenTokenizer(source_)) {}
  void TearDown() override { std::filesystem::remove(path_); }

  std::vector<int32_t> Read(const std::string& name, const std::string& content) {
    path_ = std::filesystem::path(testing::TempDir()) / name;
    std::ofstream(path_, std::ios::binary) << content;
    return ReadCalibrationIds(path_.string(), source_);
  }
  std::string ErrorOf(const std::string& name, const std::string& content) {
    try {
      Read(name, content);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kBadInput);
      return error.what();
    }
    return "";
  }
  std::vector<int32_t> Encode(const std::string& text) { return tokenizer_.Encode(text, false); }

  ModelSource source_;
  Tokenizer tokenizer_;
  std::filesystem::path path_;
};

TEST_F(TokenStreamTest, EveryFormGivesTheSameStream) {
  const std::vector<int32_t> want = Encode("one two\n\nthree \xC3\xA9");
  EXPECT_EQ(Read("t.txt", "one two\n\nthree \xC3\xA9"), want);
  EXPECT_EQ(Read("t.json", R"(["one two", "three \u00e9"])"), want);
  EXPECT_EQ(Read("t.jsonl", "{\"text\": \"one two\"}\n\n{\"text\": \"three \xC3\xA9\"}\n"), want);
  EXPECT_EQ(Read("ids.json", "[5, 6, 7]"), (std::vector<int32_t>{5, 6, 7}));
}

// The sample model's template is ChatML.
TEST_F(TokenStreamTest, MessagesAreRenderedByTheModelsTemplate) {
  const std::string line =
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}]})";
  const std::string rendered =
      "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nYes<|im_end|>\n";
  EXPECT_EQ(Read("m.jsonl", line + "\n" + line + "\n"), Encode(rendered + rendered));
  EXPECT_NE(ErrorOf("m.jsonl", R"({"messages": [{"role": "user"}]})").find("message 0"),
            std::string::npos);
}

TEST_F(TokenStreamTest, IdsNeedNoTokenizer) {
  namespace fs = std::filesystem;
  const fs::path bare = fs::path(testing::TempDir()) / "bare";
  fs::remove_all(bare);
  fs::create_directories(bare);
  for (const char* name : {"config.json", "model.safetensors"}) {
    fs::create_symlink(fs::absolute(fs::path("calib_data/sample_model") / name), bare / name);
  }
  source_ = ModelSource::Open(bare.string());
  EXPECT_EQ(Read("ids.json", "[5, 6, 7]"), (std::vector<int32_t>{5, 6, 7}));
  EXPECT_NE(ErrorOf("t.txt", "a").find("or calibrate on token ids"), std::string::npos);
  fs::remove_all(bare);
}

TEST_F(TokenStreamTest, ErrorsNameFileAndPlace) {
  EXPECT_NE(ErrorOf("t.json", R"(["a", 3])").find("entry 1"), std::string::npos);
  EXPECT_NE(ErrorOf("t.json", R"({"a": 3})").find("array"), std::string::npos);
  EXPECT_NE(ErrorOf("ids.json", "[1, 99999999]").find("entry 1"), std::string::npos);
  EXPECT_NE(ErrorOf("ids.json", "[1, -1]").find("entry 1"), std::string::npos);
  EXPECT_NE(ErrorOf("t.jsonl", "{\"text\": \"a\"}\n{\"body\": \"b\"}\n").find("line 2"),
            std::string::npos);
  EXPECT_NE(ErrorOf("t.txt", "a\xFF").find("t.txt"), std::string::npos);
}

TEST_F(TokenStreamTest, BundledTextIsLongEnoughForTheDefaults) {
  const std::vector<int32_t> ids = ReadCalibrationIds("", source_);
  EXPECT_GE(ids.size(), 128u * 512u);
}

}  // namespace
}  // namespace quantmill
