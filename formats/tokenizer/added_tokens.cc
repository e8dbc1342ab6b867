#include "formats/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

bool EndsWithWord(std::string_view text) {
  size_t start = 0;
  return !text.empty() && IsWordCharacter(PreviousCodePoint(text, text.size(), start));
}

bool StartsWithWord(std::string_view text) {
  size_t pos = 0;
  return !text.empty() && IsWordCharacter(NextCodePoint(text, pos));
}

// Start of the white space that ends at `end`.
size_t SpaceBefore(std::string_view text, size_t end) {
  for (size_t start = 0; end > 0; end = start) {
    if (!IsWhiteSpace(PreviousCodePoint(text, end, start))) break;
  }
  return end;
}

// End of the white space that starts at `begin`.
size_t SpaceAfter(std::string_view text, size_t begin) {
  for (size_t pos = begin; begin < text.size(); begin = pos) {
    if (!IsWhiteSpace(NextCodePoint(text, pos))) break;
  }
  return begin;
}

}  // namespace

bool TextMatcher::Add(std::string_view text, int32_t value) {
  size_t node = 0;
  starts_[static_cast<unsigned char>(text[0])] = true;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const auto child = nodes_[node].children.find(byte);
    if (child != nodes_[node].children.end()) {
      node = child->second;
      continue;
    }
    nodes_[node].children[byte] = nodes_.size();
    node = nodes_.size();
    nodes_.emplace_back();
  }
  if (nodes_[node].value >= 0) return false;
  nodes_[node].value = value;
  return true;
}

bool TextMatcher::Find(std::string_view text, size_t from, Match& match) const {
  if (empty()) return false;
  for (size_t begin = from; begin < text.size(); ++begin) {
    const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
    if (!starts_[byte(begin)]) continue;
    auto child = nodes_[0].children.find(byte(begin));
    bool found = false;
    for (size_t pos = begin + 1;; ++pos) {
      const Node& node = nodes_[child->second];
      if (node.value >= 0) {
        match = {begin, pos, node.value};
        found = true;
      }
      if (pos == text.size()) break;
      child = node.children.find(byte(pos));
      if (child == node.children.end()) break;
    }
    if (found) return true;
  }
  return false;
}

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Bpe& model,
                         const Normalizer* normalizer, const std::string& where)
    : tokens_(std::move(tokens)) {
  const auto refuse = [&where](const AddedToken& token, const std::string& what) {
    throw Error(ErrorCode::kBadInput, where, "added token \"" + token.content + "\": " + what);
  };
  auto next_id = static_cast<int64_t>(model.size());
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    if (token.content.empty()) refuse(token, "is empty");
    const std::optional<int32_t> known = model.TokenToId(token.content);
    const int64_t id = known ? *known : next_id++;
    if (id != token.id) {
      refuse(token, "has id " + std::to_string(token.id) + ", but the reference library gives it " +
                        std::to_string(id) + "; correct the file");
    }
    if (!known && (id > Bpe::kMaxId || model.IdToToken(static_cast<int32_t>(id)) != nullptr)) {
      refuse(token, "id " + std::to_string(id) + " belongs to another token");
    }
    if (!by_content_.emplace(token.content, i).second) refuse(token, "comes twice");
    by_id_.emplace(static_cast<int32_t>(id), i);
    id_limit_ = std::max(id_limit_, id + 1);
    normalized_.push_back(token.content);
    if (token.normalized && normalizer != nullptr) normalizer->Apply(normalized_.back());
    if (normalized_.back().empty()) refuse(token, "is empty after normalization");
    TextMatcher& matcher = token.normalized ? normalized_matcher_ : raw_;
    if (!matcher.Add(normalized_.back(), static_cast<int32_t>(i))) {
      refuse(token, "has the normalized form of another one");
    }
  }
}

void AddedTokens::Split(std::string_view text, const TextMatcher& matcher,
                        std::vector<Piece>& out) const {
  size_t done = 0;
  TextMatcher::Match match{};
  for (size_t from = 0; matcher.Find(text, from, match); from = match.end) {
    const AddedToken& token = tokens_[static_cast<size_t>(match.value)];
    size_t begin = match.begin;
    size_t end = match.end;
    if (token.single_word &&
        (EndsWithWord(text.substr(0, begin)) || StartsWithWord(text.substr(end)))) {
      continue;
    }
    if (token.lstrip) begin = std::max(SpaceBefore(text, begin), done);
    if (token.rstrip) end = SpaceAfter(text, end);
    if (done < begin) out.push_back({done, begin, Piece::kText, done == 0});
    out.push_back({begin, end, static_cast<int32_t>(token.id), false});
    done = end;
  }
  if (done < text.size()) out.push_back({done, text.size(), Piece::kText, done == 0});
}

PieceList AddedTokens::Extract(std::string_view text, const Normalizer* normalizer) const {
  PieceList list;
  list.text.reserve(text.size() + text.size() / 8);
  std::vector<Piece> raw;
  Split(text, raw_, raw);
  std::vector<Piece> parts;
  for (const Piece& piece : raw) {
    if (piece.token != Piece::kText) {
      list.pieces.push_back(piece);
      continue;
    }
    std::string normalized(text.substr(piece.begin, piece.end - piece.begin));
    if (normalizer != nullptr) normalizer->Apply(normalized);
    parts.clear();
    Split(normalized, normalized_matcher_, parts);
    const size_t base = list.text.size();
    for (const Piece& part : parts) {
      list.pieces.push_back({base + part.begin, base + part.end, part.token,
                             part.starts_input && piece.starts_input});
    }
    list.text += normalized;
  }
  return list;
}

const AddedToken* AddedTokens::Find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

int32_t AddedTokens::IdOf(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? -1 : static_cast<int32_t>(tokens_[found->second].id);
}

const std::string& AddedTokens::DecodeText(const AddedToken& token) const {
  return normalized_[static_cast<size_t>(&token - tokens_.data())];
}

}  // namespace quantmill
