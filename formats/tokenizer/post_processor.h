// Post-processors: the special tokens around an encoded text.
#ifndef QUANTMILL_FORMATS_TOKENIZER_POST_PROCESSOR_H_
#define QUANTMILL_FORMATS_TOKENIZER_POST_PROCESSOR_H_

#include <cstdint>
#include <utility>
#include <vector>

namespace quantmill {

// One template for a single text: the text's tokens with special tokens before, between and after.
// Immutable and thread-safe.
class PostProcessor {
 public:
  static constexpr int32_t kText = -1;  // stands for the tokens of the text

  // Adds nothing.
  PostProcessor() = default;
  // `items`: token ids (>= 0) and kText.
  explicit PostProcessor(std::vector<int32_t> items) : items_(std::move(items)) {}

  // `ids` in the template; without `add_special_tokens` only the text's tokens.
  std::vector<int32_t> Apply(std::vector<int32_t> ids, bool add_special_tokens) const;

  bool AddsNothing() const { return items_.size() == 1 && items_[0] == kText; }
  const std::vector<int32_t>& items() const { return items_; }

 private:
  std::vector<int32_t> items_ = {kText};
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_POST_PROCESSOR_H_
