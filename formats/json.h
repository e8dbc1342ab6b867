// JSON from files that nobody vouches for: bounded depth, no duplicate keys, nothing after the end.
#ifndef QUANTMILL_FORMATS_JSON_H_
#define QUANTMILL_FORMATS_JSON_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <iterator>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace quantmill {

inline constexpr int kMaxJsonDepth = 64;
inline constexpr uint64_t kMaxJsonBytes = 256u << 20;  // the largest real tokenizer.json is ~35 MB

// Walks over text and counts, so that a parser's events can tell their byte offset (which the
// parser itself reports only for syntax errors).
class CountingIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CountingIterator(const char* at, size_t* count) : at_(at), count_(count) {}
  reference operator*() const { return *at_; }
  CountingIterator& operator++() {
    ++at_;
    ++*count_;
    return *this;
  }
  CountingIterator operator++(int) {
    CountingIterator before = *this;
    ++*this;
    return before;
  }
  bool operator==(const CountingIterator& other) const { return at_ == other.at_; }
  bool operator!=(const CountingIterator& other) const { return at_ != other.at_; }

 private:
  const char* at_;
  size_t* count_;
};

// Throws Error(kBadInput, `where`) with the byte offset: syntax, invalid UTF-8, a key given twice
// in one object (parsers disagree on which one counts), nesting deeper than kMaxJsonDepth.
nlohmann::json ParseJson(std::string_view text, const std::string& where);

// ReadTextFile, then ParseJson.
nlohmann::json ReadJsonFile(const std::filesystem::path& path);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_JSON_H_
