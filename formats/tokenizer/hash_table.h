// Open-addressing tables of the BPE model: built once, then only read.
#ifndef QUANTMILL_FORMATS_TOKENIZER_HASH_TABLE_H_
#define QUANTMILL_FORMATS_TOKENIZER_HASH_TABLE_H_

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

namespace quantmill {

// Maps text to the index of that text in an array that the caller owns and passes to each call as
// `text_of(index) -> string_view`. Reads are thread-safe.
class TextIndex {
 public:
  static constexpr uint32_t kNone = 0xFFFFFFFFu;

  // Room for `count` entries without growth.
  void Reserve(size_t count) { slots_.assign(std::bit_ceil(count * 2 + 2), kNone); }

  // Index of the entry equal to `text`, or kNone.
  template <typename TextOf>
  uint32_t Find(std::string_view text, TextOf&& text_of) const {
    return slots_.empty() ? kNone : slots_[Slot(text, text_of)];
  }

  // Adds `index` under its text, or returns the index that already holds that text. At most as many
  // entries as Reserve was given.
  template <typename TextOf>
  uint32_t Insert(uint32_t index, TextOf&& text_of) {
    uint32_t& slot = slots_[Slot(text_of(index), text_of)];
    if (slot == kNone) slot = index;
    return slot;
  }

 private:
  template <typename TextOf>
  size_t Slot(std::string_view text, TextOf&& text_of) const {
    const size_t mask = slots_.size() - 1;
    size_t at = std::hash<std::string_view>{}(text)&mask;
    while (slots_[at] != kNone && text_of(slots_[at]) != text) at = (at + 1) & mask;
    return at;
  }

  std::vector<uint32_t> slots_;  // a power of two
};

// What merging a pair of adjacent tokens gives.
struct MergeRule {
  static constexpr uint32_t kNoRank = 0xFFFFFFFFu;
  uint32_t rank = kNoRank;  // lower merges first; kNoRank: the pair does not merge
  int32_t result = -1;      // token id
};

// Maps (left id, right id) to its MergeRule. Reads are thread-safe.
class PairTable {
 public:
  // Room for `count` pairs without growth.
  void Reserve(size_t count) { slots_.assign(std::bit_ceil(count * 2 + 2), {}); }

  // Sets the rule of a pair; a later rule of the same pair replaces the earlier one. Ids are >= 0.
  void Set(int32_t left, int32_t right, MergeRule rule) {
    Entry& entry = slots_[Slot(Key(left, right))];
    entry = {Key(left, right), rule};
  }

  // The rule of a pair, or one with rank kNoRank.
  MergeRule Find(int32_t left, int32_t right) const {
    return slots_.empty() ? MergeRule{} : slots_[Slot(Key(left, right))].rule;
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // no pair: ids are below 2^31
  struct Entry {
    uint64_t key = kEmpty;
    MergeRule rule;
  };

  static uint64_t Key(int32_t left, int32_t right) {
    return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) |
           static_cast<uint32_t>(right);
  }
  size_t Slot(uint64_t key) const {
    const size_t mask = slots_.size() - 1;
    uint64_t mixed = key * 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio
    mixed ^= mixed >> 32;
    size_t at = static_cast<size_t>(mixed) & mask;
    while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & mask;
    return at;
  }

  std::vector<Entry> slots_;  // a power of two
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_HASH_TABLE_H_
