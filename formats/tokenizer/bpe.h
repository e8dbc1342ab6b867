// The BPE model: one word -> token ids by merging adjacent tokens in order of rank.
#ifndef QUANTMILL_FORMATS_TOKENIZER_BPE_H_
#define QUANTMILL_FORMATS_TOKENIZER_BPE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/tokenizer/hash_table.h"

namespace quantmill {

// Everything a BPE model is made of; plain data, so that tokenizer.json and GGUF can both fill it.
struct BpeConfig {
  std::vector<std::pair<std::string, int64_t>> vocab;       // (token, id), any order
  std::vector<std::pair<std::string, std::string>> merges;  // in order of rank
  std::optional<std::string> unk_token;
  std::string continuing_subword_prefix;  // put before every code point but a word's first
  std::string end_of_word_suffix;         // put after a word's last code point
  bool fuse_unk = false;                  // adjacent unknown code points give one unk token
  bool byte_fallback = false;  // unknown code points give <0xHH> tokens where all of them exist
  bool ignore_merges = false;  // a word that is a token is that token, whatever the merges say
};

// Immutable and thread-safe. Tokenizes exactly as the reference library (Hugging Face tokenizers),
// which also means: a code point that is neither in the vocabulary nor covered by byte_fallback is
// dropped when the model has no unk token.
class Bpe {
 public:
  static constexpr int64_t kMaxId = (int64_t{1} << 24) - 1;

  // Words and their tokens met so far in one text. Not thread-safe; of one Bpe only.
  class Cache {
   public:
    Cache();
    ~Cache();
    Cache(const Cache&) = delete;
    Cache& operator=(const Cache&) = delete;

   private:
    friend class Bpe;
    struct State;
    std::unique_ptr<State> state_;
  };

  // Throws Error(kBadInput, where): an id outside [0, kMaxId], two tokens of one id, one token with
  // two ids, a merge whose parts or result are not in the vocabulary.
  Bpe(BpeConfig config, const std::string& where);

  // Appends the tokens of `word` (well-formed UTF-8) to `ids`. Throws Error(kBadInput) when the unk
  // token is needed and is not in the vocabulary.
  void Encode(std::string_view word, Cache& cache, std::vector<int32_t>& ids) const;

  // Number of tokens (not the largest id).
  size_t size() const { return tokens_.size(); }
  // Largest id + 1, 0 for an empty vocabulary.
  int64_t id_limit() const { return static_cast<int64_t>(index_of_id_.size()); }
  std::optional<int32_t> TokenToId(std::string_view token) const;
  // The token of an id, or null. Owned by the model.
  const std::string* IdToToken(int32_t id) const;

 private:
  void AddVocab(std::vector<std::pair<std::string, int64_t>>&& vocab);
  void AddMerges(const std::vector<std::pair<std::string, std::string>>& merges);
  void FindCutPoints();
  int32_t RequireId(const std::string& token, size_t merge) const;
  size_t NextCut(std::string_view word, size_t from) const;
  void EncodePart(std::string_view part, Cache& cache, std::vector<int32_t>& ids) const;
  void SplitIntoSymbols(std::string_view word, std::vector<int32_t>& symbols) const;
  bool AppendByteTokens(std::string_view text, std::vector<int32_t>& symbols) const;
  void MergeShort(std::vector<int32_t>& symbols) const;
  void MergeLong(std::vector<int32_t>& symbols) const;

  std::string where_;
  std::vector<std::string> tokens_;
  std::vector<int32_t> ids_;          // of tokens_
  std::vector<int32_t> index_of_id_;  // into tokens_, -1 for a hole
  TextIndex index_of_token_;
  PairTable merges_;
  std::array<int32_t, 0x800> id_of_short_;  // tokens of one code point below U+0800, -1 for none
  std::array<int32_t, 256> byte_ids_;       // <0xHH>, -1 for none
  std::optional<std::string> unk_token_;
  std::string continuing_subword_prefix_;
  std::string end_of_word_suffix_;
  bool fuse_unk_;
  bool byte_fallback_;
  bool ignore_merges_;
  bool cut_at_metaspace_ = false;  // see FindCutPoints
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_BPE_H_
