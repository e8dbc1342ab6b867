#include "formats/tokenizer/bpe.h"

#include <algorithm>
#include <queue>

#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

constexpr std::string_view kMetaspace = "\xE2\x96\x81";  // U+2581
constexpr size_t kShortWord = 40;       // above it, the heap beats rescanning the word
constexpr size_t kMaxCachedWord = 128;  // bytes
constexpr size_t kMaxCachedWords = size_t{1} << 17;

std::string Quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }

}  // namespace

struct Bpe::Cache::State {
  struct Entry {
    size_t text_begin, text_end;
    size_t ids_begin, ids_end;
  };
  std::string text;
  std::vector<int32_t> ids;
  std::vector<Entry> entries;
  TextIndex index;
  size_t capacity = 0;
  std::vector<int32_t> symbols;  // scratch

  std::string_view TextOf(uint32_t i) const {
    return std::string_view(text).substr(entries[i].text_begin,
                                         entries[i].text_end - entries[i].text_begin);
  }
  uint32_t Find(std::string_view word) const {
    return index.Find(word, [this](uint32_t i) { return TextOf(i); });
  }
  void Add(std::string_view word, const std::vector<int32_t>& word_ids) {
    if (word.size() > kMaxCachedWord || entries.size() >= kMaxCachedWords) return;
    const auto text_of = [this](uint32_t i) { return TextOf(i); };
    if (entries.size() == capacity) {
      capacity = capacity == 0 ? 64 : capacity * 4;
      index.Reserve(capacity);
      for (uint32_t i = 0; i < entries.size(); ++i) index.Insert(i, text_of);
    }
    entries.push_back(
        {text.size(), text.size() + word.size(), ids.size(), ids.size() + word_ids.size()});
    text += word;
    ids.insert(ids.end(), word_ids.begin(), word_ids.end());
    index.Insert(static_cast<uint32_t>(entries.size() - 1), text_of);
  }
};

Bpe::Cache::Cache() : state_(std::make_unique<State>()) {}
Bpe::Cache::~Cache() = default;

Bpe::Bpe(BpeConfig config, const std::string& where)
    : where_(where),
      unk_token_(std::move(config.unk_token)),
      continuing_subword_prefix_(std::move(config.continuing_subword_prefix)),
      end_of_word_suffix_(std::move(config.end_of_word_suffix)),
      fuse_unk_(config.fuse_unk),
      byte_fallback_(config.byte_fallback),
      ignore_merges_(config.ignore_merges) {
  AddVocab(std::move(config.vocab));
  AddMerges(config.merges);
  FindCutPoints();
}

void Bpe::AddVocab(std::vector<std::pair<std::string, int64_t>>&& vocab) {
  int64_t max_id = -1;
  for (const auto& [token, id] : vocab) {
    if (id < 0 || id > kMaxId) {
      throw Error(ErrorCode::kBadInput, where_,
                  "token " + Quoted(token) + " has id " + std::to_string(id) + ", outside 0.." +
                      std::to_string(kMaxId));
    }
    max_id = std::max(max_id, id);
  }
  index_of_id_.assign(static_cast<size_t>(max_id + 1), -1);
  index_of_token_.Reserve(vocab.size());
  tokens_.reserve(vocab.size());
  ids_.reserve(vocab.size());
  const auto text_of = [this](uint32_t i) { return std::string_view(tokens_[i]); };
  id_of_short_.fill(-1);
  for (auto& [token, id] : vocab) {
    const auto index = static_cast<uint32_t>(tokens_.size());
    int32_t& holder = index_of_id_[static_cast<size_t>(id)];
    if (holder >= 0) {
      throw Error(ErrorCode::kBadInput, where_,
                  "tokens " + Quoted(tokens_[static_cast<size_t>(holder)]) + " and " +
                      Quoted(token) + " have the same id " + std::to_string(id));
    }
    holder = static_cast<int32_t>(index);
    tokens_.push_back(std::move(token));
    ids_.push_back(static_cast<int32_t>(id));
    if (index_of_token_.Insert(index, text_of) != index) {
      throw Error(ErrorCode::kBadInput, where_, "token " + Quoted(tokens_.back()) + " comes twice");
    }
    const std::string& text = tokens_.back();
    if (text.empty() || Utf8Length(text[0]) != text.size()) continue;
    size_t pos = 0;
    const char32_t code_point = NextCodePoint(text, pos);
    if (code_point < id_of_short_.size()) id_of_short_[code_point] = static_cast<int32_t>(id);
  }
  constexpr std::string_view kHex = "0123456789ABCDEF";
  for (size_t byte = 0; byte < byte_ids_.size(); ++byte) {
    const std::string name = std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">";
    byte_ids_[byte] = TokenToId(name).value_or(-1);
  }
}

int32_t Bpe::RequireId(const std::string& token, size_t merge) const {
  const std::optional<int32_t> id = TokenToId(token);
  if (!id) {
    throw Error(ErrorCode::kBadInput, where_,
                "merge " + std::to_string(merge) + " needs the token " + Quoted(token) +
                    ", which is not in the vocabulary");
  }
  return *id;
}

void Bpe::AddMerges(const std::vector<std::pair<std::string, std::string>>& merges) {
  merges_.Reserve(merges.size());
  std::string joined;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const int32_t left_id = RequireId(left, rank);
    const int32_t right_id = RequireId(right, rank);
    if (right.size() < continuing_subword_prefix_.size()) {
      throw Error(ErrorCode::kBadInput, where_,
                  "the right part of merge " + std::to_string(rank) +
                      " is shorter than continuing_subword_prefix");
    }
    joined = left;
    joined.append(right, continuing_subword_prefix_.size());
    merges_.Set(left_id, right_id, {static_cast<uint32_t>(rank), RequireId(joined, rank)});
  }
}

// SentencePiece-style models get whole paragraphs as one word. Where no token has a space sign
// after another code point, no merge can reach across such a place, so the parts between them can
// be merged (and remembered) one by one: the same tokens, in linear time. Not when code points may
// be dropped, which would join what is around them.
void Bpe::FindCutPoints() {
  const bool all_bytes = byte_fallback_ && std::all_of(byte_ids_.begin(), byte_ids_.end(),
                                                       [](int32_t id) { return id >= 0; });
  cut_at_metaspace_ = !ignore_merges_ && continuing_subword_prefix_.empty() &&
                      end_of_word_suffix_.empty() && TokenToId(kMetaspace).has_value() &&
                      (all_bytes || unk_token_.has_value());
  for (const std::string& token : tokens_) {
    if (!cut_at_metaspace_) return;
    if (NextCut(token, 0) != token.size()) cut_at_metaspace_ = false;
  }
}

// First place after `from` where a space sign follows something else, or the end of `word`.
size_t Bpe::NextCut(std::string_view word, size_t from) const {
  size_t at = word.find(kMetaspace, from + 1);
  while (at != std::string_view::npos) {
    const bool follows_space = at >= from + kMetaspace.size() &&
                               word.substr(at - kMetaspace.size(), kMetaspace.size()) == kMetaspace;
    if (!follows_space && at > from) return at;
    at = word.find(kMetaspace, at + kMetaspace.size());
  }
  return word.size();
}

std::optional<int32_t> Bpe::TokenToId(std::string_view token) const {
  const uint32_t index =
      index_of_token_.Find(token, [this](uint32_t i) { return std::string_view(tokens_[i]); });
  if (index == TextIndex::kNone) return std::nullopt;
  return ids_[index];
}

const std::string* Bpe::IdToToken(int32_t id) const {
  if (id < 0 || id >= id_limit()) return nullptr;
  const int32_t index = index_of_id_[static_cast<size_t>(id)];
  return index < 0 ? nullptr : &tokens_[static_cast<size_t>(index)];
}

void Bpe::Encode(std::string_view word, Cache& cache, std::vector<int32_t>& ids) const {
  if (!cut_at_metaspace_) return EncodePart(word, cache, ids);
  for (size_t begin = 0; begin < word.size();) {
    const size_t end = NextCut(word, begin);
    EncodePart(word.substr(begin, end - begin), cache, ids);
    begin = end;
  }
}

void Bpe::EncodePart(std::string_view part, Cache& cache, std::vector<int32_t>& ids) const {
  if (part.empty()) return;
  Cache::State& state = *cache.state_;
  const uint32_t known = state.Find(part);
  if (known != TextIndex::kNone) {
    const auto& entry = state.entries[known];
    ids.insert(ids.end(), state.ids.begin() + static_cast<std::ptrdiff_t>(entry.ids_begin),
               state.ids.begin() + static_cast<std::ptrdiff_t>(entry.ids_end));
    return;
  }
  std::vector<int32_t>& symbols = state.symbols;
  symbols.clear();
  const std::optional<int32_t> whole = ignore_merges_ ? TokenToId(part) : std::nullopt;
  if (whole) {
    symbols.push_back(*whole);
  } else {
    SplitIntoSymbols(part, symbols);
    if (symbols.size() <= kShortWord) {
      MergeShort(symbols);
    } else {
      MergeLong(symbols);
    }
  }
  state.Add(part, symbols);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

void Bpe::SplitIntoSymbols(std::string_view word, std::vector<int32_t>& symbols) const {
  const bool decorated = !continuing_subword_prefix_.empty() || !end_of_word_suffix_.empty();
  std::string with_affixes;
  int32_t unk = -1;  // >= 0: waits, for with fuse_unk it stands for the unknown ones that follow
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    const char32_t code_point = NextCodePoint(word, pos);
    std::string_view text = word.substr(begin, pos - begin);
    if (decorated) {
      with_affixes = begin > 0 ? continuing_subword_prefix_ : "";
      with_affixes += text;
      if (pos == word.size()) with_affixes += end_of_word_suffix_;
      text = with_affixes;
    }
    const int32_t id = !decorated && code_point < id_of_short_.size()
                           ? id_of_short_[code_point]
                           : TokenToId(text).value_or(-1);
    if (id >= 0) {
      if (unk >= 0) symbols.push_back(unk);
      unk = -1;
      symbols.push_back(id);
      continue;
    }
    // As in the reference library, a waiting unk token comes after these bytes.
    if (byte_fallback_ && AppendByteTokens(text, symbols)) continue;
    if (!unk_token_) continue;
    if (unk >= 0 && !fuse_unk_) symbols.push_back(unk);
    unk = TokenToId(*unk_token_).value_or(-1);
    if (unk < 0) {
      throw Error(ErrorCode::kBadInput, where_,
                  "the text needs the unk token " + Quoted(*unk_token_) +
                      ", which is not in the vocabulary");
    }
  }
  if (unk >= 0) symbols.push_back(unk);
}

bool Bpe::AppendByteTokens(std::string_view text, std::vector<int32_t>& symbols) const {
  const auto id_of = [this](char c) { return byte_ids_[static_cast<unsigned char>(c)]; };
  if (!std::all_of(text.begin(), text.end(), [&](char c) { return id_of(c) >= 0; })) return false;
  for (const char c : text) symbols.push_back(id_of(c));
  return true;
}

// Lowest rank first, leftmost among equals, by scanning all pairs: fastest for real words.
void Bpe::MergeShort(std::vector<int32_t>& symbols) const {
  std::array<MergeRule, kShortWord> rules;  // rules[i]: of symbols i and i + 1
  size_t count = symbols.size();
  for (size_t i = 0; i + 1 < count; ++i) rules[i] = merges_.Find(symbols[i], symbols[i + 1]);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (rules[i].rank < rules[best].rank) best = i;
    }
    if (rules[best].rank == MergeRule::kNoRank) break;
    symbols[best] = rules[best].result;
    --count;
    for (size_t i = best + 1; i < count; ++i) {
      symbols[i] = symbols[i + 1];
      rules[i - 1] = rules[i];
    }
    if (best > 0) rules[best - 1] = merges_.Find(symbols[best - 1], symbols[best]);
    if (best + 1 < count) rules[best] = merges_.Find(symbols[best], symbols[best + 1]);
  }
  symbols.resize(count);
}

// The same order with a heap over a linked list: O(n log n). An entry of the heap is stale when its
// pair has changed since; the rank tells, for two pairs never share one.
void Bpe::MergeLong(std::vector<int32_t>& symbols) const {
  struct Candidate {
    uint32_t rank;
    size_t left;
    int32_t result;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  const size_t count = symbols.size();
  std::vector<size_t> previous(count);
  std::vector<size_t> next(count);  // count: none
  std::vector<bool> alive(count, true);
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](size_t left) {
    if (next[left] == count) return;
    const MergeRule rule = merges_.Find(symbols[left], symbols[next[left]]);
    if (rule.rank != MergeRule::kNoRank) queue.push({rule.rank, left, rule.result});
  };
  for (size_t i = 0; i < count; ++i) {
    previous[i] = i == 0 ? count : i - 1;
    next[i] = i + 1;
  }
  for (size_t i = 0; i < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    if (!alive[top.left] || next[top.left] == count) continue;
    const size_t right = next[top.left];
    if (merges_.Find(symbols[top.left], symbols[right]).rank != top.rank) continue;
    symbols[top.left] = top.result;
    alive[right] = false;
    next[top.left] = next[right];
    if (next[right] != count) previous[next[right]] = top.left;
    if (previous[top.left] != count) offer(previous[top.left]);
    offer(top.left);
  }
  size_t kept = 0;
  for (size_t i = 0; i < count; ++i) {
    if (alive[i]) symbols[kept++] = symbols[i];
  }
  symbols.resize(kept);
}

}  // namespace quantmill
