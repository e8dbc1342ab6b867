// Added tokens: cut out of the text before anything else sees it.
#ifndef QUANTMILL_FORMATS_TOKENIZER_ADDED_TOKENS_H_
#define QUANTMILL_FORMATS_TOKENIZER_ADDED_TOKENS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/normalizer.h"
#include "formats/tokenizer/pieces.h"

namespace quantmill {

// One entry of `added_tokens`.
struct AddedToken {
  int64_t id = 0;
  std::string content;
  bool single_word = false;  // only where no word character touches it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // takes the white space after it
  bool normalized = false;   // matched, normalized, in the normalized text
  bool special = false;      // left out when decoding with skip_special_tokens
};

// Finds the leftmost, then longest, of a set of texts. Immutable after the last Add; thread-safe.
class TextMatcher {
 public:
  // Adds a non-empty text; false when it is there already.
  bool Add(std::string_view text, int32_t value);
  bool empty() const { return nodes_.size() == 1; }

  struct Match {
    size_t begin;
    size_t end;
    int32_t value;
  };
  // First match at or after `from`; false when there is none.
  bool Find(std::string_view text, size_t from, Match& match) const;

 private:
  struct Node {
    std::map<unsigned char, size_t> children;
    int32_t value = -1;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::array<bool, 256> starts_{};  // bytes that some text starts with: most bytes end there
};

// The added tokens of one tokenizer. Immutable and thread-safe.
class AddedTokens {
 public:
  // `normalizer` may be null. Throws Error(kBadInput, where) for an empty content, two tokens of
  // one content, id or normalized form, and an id other than the one that the reference library
  // would give the token (that of the vocabulary, else the next free one).
  AddedTokens(std::vector<AddedToken> tokens, const Bpe& model, const Normalizer* normalizer,
              const std::string& where);

  // Cuts `text` (well-formed UTF-8) at the added tokens and normalizes what is between them.
  PieceList Extract(std::string_view text, const Normalizer* normalizer) const;

  // The added token of an id, or null.
  const AddedToken* Find(int32_t id) const;
  // The id of an added token's content, or -1.
  int32_t IdOf(std::string_view content) const;
  // The text that the decoder gets for an added token: its normalized form.
  const std::string& DecodeText(const AddedToken& token) const;
  // Largest id + 1, 0 without any.
  int64_t id_limit() const { return id_limit_; }

 private:
  void Split(std::string_view text, const TextMatcher& matcher, std::vector<Piece>& out) const;

  std::vector<AddedToken> tokens_;
  std::vector<std::string> normalized_;  // of tokens_
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string, size_t> by_content_;
  TextMatcher raw_;  // values are indices into tokens_
  TextMatcher normalized_matcher_;
  int64_t id_limit_ = 0;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_ADDED_TOKENS_H_
