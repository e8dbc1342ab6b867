#include "formats/gguf/sentencepiece_scores.h"

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "formats/gguf/sentencepiece_merges.h"
#include "formats/gguf/token_type.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

using nlohmann::json;
using Merges = std::vector<std::pair<std::string, std::string>>;

constexpr std::string_view kMetaspace = "\u2581";

[[noreturn]] void Refuse(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::kBadInput, where, what);
}

// llama.cpp joins whatever makes a piece: merges must say the same.
void CheckComplete(std::span<const std::pair<std::string, std::string>> merges,
                   const Merges& joined, const std::string& where) {
  Merges own(merges.begin(), merges.end());
  Merges theirs = joined;
  std::ranges::sort(own);
  std::ranges::sort(theirs);
  Merges different;
  std::ranges::set_symmetric_difference(own, theirs, std::back_inserter(different));
  if (different.empty()) return;
  Refuse(where,
         "model: merges are not those of a SentencePiece vocabulary, of which llama.cpp joins "
         "every two pieces that make a third: '" +
             different.front().first + "' and '" + different.front().second + "' are among " +
             std::to_string(different.size()) + " that differ");
}

constexpr size_t kNotMade = ~size_t{0};

// Which piece each merge makes, by id.
std::vector<size_t> MadePieces(std::span<const std::string> pieces,
                               std::span<const std::pair<std::string, std::string>> merges,
                               const std::string& where) {
  std::unordered_map<std::string_view, size_t> ids;
  for (size_t id = 0; id < pieces.size(); ++id) {
    if (!pieces[id].empty()) ids.emplace(pieces[id], id);
  }
  std::vector<size_t> made;
  made.reserve(merges.size());
  for (const auto& [left, right] : merges) {
    const auto joint = ids.find(left + right);
    if (joint == ids.end()) {
      Refuse(where, "model: the merge of '" + left + "' and '" + right + "' makes no token");
    }
    made.push_back(joint->second);
  }
  return made;
}

// 0, 1, ... in the order in which pieces are made, by id. Merges of one score lie in the order of
// their lengths, so that pieces whose merges interleave have one rank.
std::vector<size_t> RanksOf(const std::vector<size_t>& made, size_t tokens) {
  std::vector<size_t> last(tokens, 0);
  for (size_t i = 0; i < made.size(); ++i) last[made[i]] = i;
  std::vector<size_t> ranks(tokens, kNotMade);
  size_t rank = 0;
  size_t end = 0;  // of the merges that have `rank`
  for (size_t i = 0; i < made.size(); ++i) {
    if (i > end) {
      ++rank;
      end = i;
    }
    end = std::max(end, last[made[i]]);
    ranks[made[i]] = rank;
  }
  return ranks;
}

// Merges of one piece may come in any order: which is done first depends on the text alone. Those
// of several pieces must come as scores would have them.
void CheckOrder(std::span<const std::pair<std::string, std::string>> merges, const Merges& joined,
                const std::vector<size_t>& made, const std::vector<size_t>& ranks,
                const std::string& where) {
  std::vector<std::optional<size_t>> alone(made.size());  // the piece of a rank, where it is one
  for (size_t i = 0; i < made.size(); ++i) {
    std::optional<size_t>& piece = alone[ranks[made[i]]];
    const bool first = i == 0 || ranks[made[i - 1]] != ranks[made[i]];
    if (first) piece = made[i];
    if (piece != made[i]) piece = std::nullopt;
  }
  for (size_t i = 0; i < made.size(); ++i) {
    if (merges[i] == joined[i] || alone[ranks[made[i]]]) continue;
    Refuse(where, "model: the merge of '" + merges[i].first + "' and '" + merges[i].second +
                      "' lies apart from others that make the same piece: no score says that");
  }
}

bool IsReplace(const json& part) {
  return part.is_object() && part.value("type", "") == "Replace" &&
         part.value("content", "") == kMetaspace && part.contains("pattern") &&
         part.at("pattern") == json{{"String", " "}};
}

// Of a normalizer: whether it puts the sign before a text; nothing where spaces stay.
std::optional<bool> PrefixOfNormalizer(const json& normalizer, const std::string& where) {
  if (normalizer.is_null()) return std::nullopt;
  if (IsReplace(normalizer)) return false;
  const json parts = normalizer.value("normalizers", json::array());
  if (parts.size() == 1 && IsReplace(parts[0])) return false;
  const json prepend = {{"type", "Prepend"}, {"prepend", kMetaspace}};
  if (parts.size() == 2 && parts[0] == prepend && IsReplace(parts[1])) return true;
  Refuse(where,
         "normalizer: llama.cpp's SentencePiece only makes spaces U+2581, with one before "
         "the text or without");
}

}  // namespace

std::vector<float> ScoresFromMerges(std::span<const std::string> tokens,
                                    std::span<const int32_t> types,
                                    std::span<const std::pair<std::string, std::string>> merges,
                                    const std::string& where) {
  std::vector<std::string> pieces(tokens.size());
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (types[id] == kNormal || types[id] == kUserDefined) pieces[id] = tokens[id];
  }
  const std::vector<size_t> made = MadePieces(pieces, merges, where);
  const std::vector<size_t> ranks = RanksOf(made, tokens.size());
  const size_t last = made.empty() ? 0 : ranks[made.back()] + 1;
  std::vector<float> scores;
  scores.reserve(ranks.size());
  for (const size_t rank : ranks) {
    scores.push_back(-static_cast<float>(rank == kNotMade ? last : rank));
  }
  const Merges joined = MergesFromScores(pieces, scores);
  CheckComplete(merges, joined, where);
  CheckOrder(merges, joined, made, ranks, where);
  return scores;
}

bool AddsSpacePrefix(const json& normalizer, const json& pre_tokenizer, const std::string& where) {
  const std::optional<bool> prefix = PrefixOfNormalizer(normalizer, where);
  const std::string type = pre_tokenizer.is_object() ? pre_tokenizer.value("type", "") : "";
  if (prefix) {
    // Gemma's cuts at spaces, of which none are left.
    const bool idle =
        type == "Split" && pre_tokenizer.value("pattern", json()) == json{{"String", " "}};
    if (pre_tokenizer.is_null() || idle) return *prefix;
  } else if (type == "Metaspace" && pre_tokenizer.value("replacement", "") == kMetaspace &&
             !pre_tokenizer.value("split", true)) {
    return pre_tokenizer.value("prepend_scheme", "always") != "never";
  }
  Refuse(where, "pre_tokenizer: llama.cpp's SentencePiece cuts no text before it joins pieces");
}

int ByteOfToken(const std::string& token) {
  constexpr std::string_view kBegin = "<0x";
  if (token.size() != 6 || !token.starts_with(kBegin) || token.back() != '>') return -1;
  int byte = -1;
  const char* digits = token.data() + kBegin.size();
  const auto [end, error] = std::from_chars(digits, digits + 2, byte, 16);
  return error == std::errc() && end == digits + 2 ? byte : -1;
}

}  // namespace quantmill
