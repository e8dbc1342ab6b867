// A golden model (golden_model.h) that can be calibrated: a copy with a tokenizer and a text.
#ifndef QUANTMILL_TESTS_QUANT_RUNTIME_GOLDEN_COPY_H_
#define QUANTMILL_TESTS_QUANT_RUNTIME_GOLDEN_COPY_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "tests/quant/runtime/golden_model.h"

namespace quantmill::test {

// One token for each printable character of ASCII, as byte-level tokenizers spell it, and one for
// the end of a line.
inline nlohmann::json CharacterTokenizer() {
  nlohmann::json vocabulary = {{"\u0120", 0}, {"\u010A", 1}};
  for (char c = '!'; c <= '~'; ++c) vocabulary[std::string(1, c)] = c - '!' + 2;
  const nlohmann::json bytes = {{"type", "ByteLevel"},
                                {"add_prefix_space", false},
                                {"trim_offsets", true},
                                {"use_regex", false}};
  return {{"version", "1.0"},
          {"added_tokens", nlohmann::json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", bytes},
          {"post_processor", nullptr},
          {"decoder", bytes},
          {"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", nlohmann::json::array()}}}};
}

// Lies in a temporary folder that dies with the object; outputs may be put beside it.
class GoldenCopy {
 public:
  // `purpose` tells the copies of different tests apart. The text has `characters` characters.
  GoldenCopy(const std::string& purpose, const std::string& golden, int64_t characters)
      : folder_(std::filesystem::path(testing::TempDir()) /
                (purpose + "_" + golden + "_" + std::to_string(getpid()))) {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
    std::filesystem::copy(GoldenFolder(golden), folder_ / "model");
    std::filesystem::remove(folder_ / "model" / "expected.safetensors");
    std::ofstream(folder_ / "model" / "tokenizer.json") << CharacterTokenizer();
    std::ofstream stream(text());
    for (int64_t i = 0; i < characters; ++i) {
      stream << static_cast<char>('!' + (i * i + 7 * i) % 94);
    }
  }
  ~GoldenCopy() { std::filesystem::remove_all(folder_); }
  GoldenCopy(const GoldenCopy&) = delete;
  GoldenCopy& operator=(const GoldenCopy&) = delete;

  std::string model() const { return output("model"); }
  std::string text() const { return output("calibration.txt"); }
  std::string output(const std::string& name) const { return (folder_ / name).string(); }

 private:
  std::filesystem::path folder_;
};

}  // namespace quantmill::test

#endif  // QUANTMILL_TESTS_QUANT_RUNTIME_GOLDEN_COPY_H_
