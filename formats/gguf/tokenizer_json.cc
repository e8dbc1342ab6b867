// tokenizer.json from the metadata of a GGUF file.
#include <algorithm>
#include <cmath>
#include <set>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "formats/gguf/pre_tokenizer_names.h"
#include "formats/gguf/sentencepiece_merges.h"
#include "formats/gguf/token_type.h"
#include "formats/gguf/tokenizer_files.h"
#include "formats/tokenizer/unicode.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

using nlohmann::json;

constexpr const char* kTokensKey = "tokenizer.ggml.tokens";
constexpr const char* kTypesKey = "tokenizer.ggml.token_type";
constexpr const char* kScoresKey = "tokenizer.ggml.scores";
constexpr const char* kMergesKey = "tokenizer.ggml.merges";
constexpr std::string_view kMetaspace = "\u2581";

json Sequence(const char* name, json parts) { return {{"type", "Sequence"}, {name, parts}}; }
json ReplaceText(std::string_view from, std::string_view to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

class Reader {
 public:
  Reader(const GgufMetadata& metadata, const std::string& pre) : metadata_(metadata), pre_(pre) {
    const std::string* model = metadata.Text("tokenizer.ggml.model");
    if (model == nullptr) metadata.Fail("tokenizer.ggml.model", "a STRING: it names the tokenizer");
    ReadTokens();
    if (*model == "gpt2") {
      ReadSpecialTokens(false);
      ByteLevel();
    } else if (*model == "llama") {
      ReadSpecialTokens(true);
      SentencePiece();
    } else {
      Refuse("tokenizer.ggml.model", "is '" + *model +
                                         "'; only 'gpt2' (byte-level BPE) and 'llama' "
                                         "(SentencePiece BPE) are read");
    }
    AddTokens();
    result_.json["post_processor"] = PostProcessorJson();
    result_.json["version"] = "1.0";
    result_.json["truncation"] = nullptr;
    result_.json["padding"] = nullptr;
    result_.tokens = std::ssize(*tokens_);
  }

  GgufTokenizer Take() && { return std::move(result_); }

 private:
  [[noreturn]] void Refuse(const std::string& key, const std::string& what) const {
    throw Error(ErrorCode::kBadInput, metadata_.where(), "metadata key '" + key + "' " + what);
  }
  std::string NameOf(size_t id) const {
    return "token " + std::to_string(id) + " ('" + (*tokens_)[id] + "')";
  }

  void ReadTokens();
  void ReadSpecialTokens(bool sentencepiece);
  std::optional<int32_t> TokenId(const std::string& name) const;
  void ByteLevel();
  json MergesJson() const;
  void SentencePiece();
  json ScoredMergesJson() const;
  json VocabJson() const;
  void AddTokens();
  json PostProcessorJson() const;
  int32_t TypeOf(size_t id) const { return types_ == nullptr ? int32_t{kNormal} : (*types_)[id]; }
  // Filler for rows of the embedding that no token uses.
  bool IsFiller(size_t id) const {
    return TypeOf(id) == kUnused && (*tokens_)[id] == "[PAD" + std::to_string(id) + "]";
  }

  const GgufMetadata& metadata_;
  const std::string& pre_;
  const std::vector<std::string>* tokens_ = nullptr;
  const std::vector<int32_t>* types_ = nullptr;
  GgufTokenizer result_;
};

void Reader::ReadTokens() {
  tokens_ = metadata_.Array<std::string>(kTokensKey);
  if (tokens_ == nullptr || tokens_->empty()) {
    metadata_.Fail(kTokensKey, "an array of STRING with every token");
  }
  types_ = metadata_.Array<int32_t>(kTypesKey);
  if (types_ != nullptr && types_->size() != tokens_->size()) {
    Refuse(kTypesKey, "has " + std::to_string(types_->size()) + " entries for " +
                          std::to_string(tokens_->size()) + " tokens");
  }
  std::unordered_set<std::string_view> seen;
  for (size_t id = 0; id < tokens_->size(); ++id) {
    const std::string& token = (*tokens_)[id];
    if (FindInvalidUtf8(token)) {
      Refuse(kTokensKey, "holds token " + std::to_string(id) + ", which is not valid UTF-8");
    }
    if (TypeOf(id) < kNormal || TypeOf(id) > kByte) {
      Refuse(kTypesKey, "gives " + NameOf(id) + " the unknown type " + std::to_string(TypeOf(id)));
    }
    if (!IsFiller(id) && !seen.insert(token).second) {
      Refuse(kTokensKey, "holds " + NameOf(id) + " twice");
    }
  }
}

std::optional<int32_t> Reader::TokenId(const std::string& name) const {
  const std::string key = "tokenizer.ggml." + name + "_token_id";
  const std::optional<uint64_t> id = metadata_.Unsigned(key);
  if (!id) return std::nullopt;
  if (*id >= tokens_->size()) {
    Refuse(key, "is " + std::to_string(*id) + ", but there are " + std::to_string(tokens_->size()) +
                    " tokens");
  }
  return static_cast<int32_t>(*id);
}

// llama.cpp's defaults for SentencePiece are those of Llama; for byte-level BPE it takes token 11,
// which means nothing.
void Reader::ReadSpecialTokens(bool sentencepiece) {
  GgufSpecialTokens& special = result_.special;
  const auto or_default = [&](const char* name, int32_t id) {
    const std::optional<int32_t> found = TokenId(name);
    if (found || !sentencepiece || static_cast<size_t>(id) >= tokens_->size()) return found;
    return std::optional(id);
  };
  special.bos = or_default("bos", 1);
  special.eos = or_default("eos", 2);
  special.unk = or_default("unknown", 0);
  special.pad = TokenId("padding");
  if (special.eos) special.ends.push_back(*special.eos);
  for (const char* name : {"eot", "eom"}) {
    const std::optional<int32_t> id = TokenId(name);
    if (id && std::ranges::find(special.ends, *id) == special.ends.end()) {
      special.ends.push_back(*id);
    }
  }
  special.add_bos = metadata_.Bool("tokenizer.ggml.add_bos_token").value_or(sentencepiece);
  special.add_eos = metadata_.Bool("tokenizer.ggml.add_eos_token").value_or(false);
}

json Reader::VocabJson() const {
  json vocab = json::object();
  for (size_t id = 0; id < tokens_->size(); ++id) {
    if (!IsFiller(id)) vocab[(*tokens_)[id]] = id;
  }
  return vocab;
}

// A merge has one space between its parts; one that belongs to a part is spelled as its byte is.
json Reader::MergesJson() const {
  const auto* merges = metadata_.Array<std::string>(kMergesKey);
  if (merges == nullptr) metadata_.Fail(kMergesKey, "an array of STRING; convert the model again");
  json list = json::array();
  for (size_t i = 0; i < merges->size(); ++i) {
    const std::string& merge = (*merges)[i];
    const size_t space = merge.find(' ', 1);  // a part may itself be a space in old files
    if (space == std::string::npos || FindInvalidUtf8(merge)) {
      Refuse(kMergesKey, "holds entry " + std::to_string(i) + ", which is no two tokens");
    }
    list.push_back(json::array({merge.substr(0, space), merge.substr(space + 1)}));
  }
  return list;
}

void Reader::ByteLevel() {
  const std::string* named = metadata_.Text("tokenizer.ggml.pre");
  if (named == nullptr && pre_.empty()) {
    metadata_.Fail(
        "tokenizer.ggml.pre",
        "the name of the split patterns, without which words cannot be told; if you know "
        "the name, give it with --gguf-pre");
  }
  const std::string& name = pre_.empty() ? *named : pre_;
  const std::optional<NamedPreTokenizer> known = PreTokenizerNamed(name);
  if (!known) {
    Refuse("tokenizer.ggml.pre", "is '" + name +
                                     "', whose split patterns are not known; if another name has "
                                     "the same, give it with --gguf-pre");
  }
  if (!metadata_.Find("tokenizer.ggml.add_bos_token")) result_.special.add_bos = known->adds_bos;
  json& tokenizer = result_.json;
  tokenizer["normalizer"] = known->normalizer;
  tokenizer["pre_tokenizer"] = known->pre_tokenizer;
  tokenizer["decoder"] = {{"type", "ByteLevel"},
                          {"add_prefix_space", true},
                          {"trim_offsets", true},
                          {"use_regex", true}};
  tokenizer["model"] = {{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", nullptr},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", false},
                        {"byte_fallback", false},
                        {"ignore_merges", known->ignore_merges},
                        {"vocab", VocabJson()},
                        {"merges", MergesJson()}};
}

json Reader::ScoredMergesJson() const {
  const auto* scores = metadata_.Array<float>(kScoresKey);
  if (scores == nullptr || scores->size() != tokens_->size()) {
    metadata_.Fail(kScoresKey, "an array of F32 with the score of every token");
  }
  std::vector<std::string> pieces(tokens_->size());
  std::set<float> distinct;
  for (size_t id = 0; id < pieces.size(); ++id) {
    const int32_t type = TypeOf(id);
    if (type != kNormal && type != kUserDefined && type != kUnused) continue;
    if (std::isnan((*scores)[id])) Refuse(kScoresKey, "has no number for " + NameOf(id));
    if (IsFiller(id)) continue;
    pieces[id] = (*tokens_)[id];
    if (distinct.size() < 2 && type == kNormal) distinct.insert((*scores)[id]);
  }
  if (distinct.size() < 2) {
    Refuse(kScoresKey, "ranks nothing: all scores are equal, so that no text can be tokenized");
  }
  json list = json::array();
  for (auto& [left, right] : MergesFromScores(pieces, *scores)) {
    list.push_back(json::array({std::move(left), std::move(right)}));
  }
  return list;
}

void Reader::SentencePiece() {
  if (metadata_.Find("tokenizer.ggml.precompiled_charsmap") != nullptr) {
    Refuse("tokenizer.ggml.precompiled_charsmap", "is a normalization that is not read");
  }
  if (metadata_.Bool("tokenizer.ggml.remove_extra_whitespaces").value_or(false)) {
    Refuse("tokenizer.ggml.remove_extra_whitespaces", "is true, which is not read");
  }
  const bool prefix = metadata_.Bool("tokenizer.ggml.add_space_prefix").value_or(true);
  bool bytes = false;
  for (size_t id = 0; id < tokens_->size(); ++id) bytes |= TypeOf(id) == kByte;
  json normalizers = json::array({ReplaceText(" ", kMetaspace)});
  json decoders =
      json::array({ReplaceText(kMetaspace, " "), {{"type", "ByteFallback"}}, {{"type", "Fuse"}}});
  if (prefix) {
    normalizers.insert(normalizers.begin(),
                       json{{"type", "Prepend"}, {"prepend", kMetaspace}});  // not a list of two
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  json& tokenizer = result_.json;
  tokenizer["normalizer"] = Sequence("normalizers", normalizers);
  tokenizer["pre_tokenizer"] = nullptr;
  tokenizer["decoder"] = Sequence("decoders", decoders);
  const std::optional<int32_t> unk = result_.special.unk;
  tokenizer["model"] = {{"type", "BPE"},
                        {"dropout", nullptr},
                        {"unk_token", unk ? json((*tokens_)[static_cast<size_t>(*unk)]) : json()},
                        {"continuing_subword_prefix", nullptr},
                        {"end_of_word_suffix", nullptr},
                        {"fuse_unk", true},
                        {"byte_fallback", bytes},
                        {"ignore_merges", false},
                        {"vocab", VocabJson()},
                        {"merges", ScoredMergesJson()}};
}

void Reader::AddTokens() {
  json& added = result_.json["added_tokens"] = json::array();
  for (size_t id = 0; id < tokens_->size(); ++id) {
    const int32_t type = TypeOf(id);
    if (type != kControl && type != kUnknown && type != kUserDefined) continue;
    if ((*tokens_)[id].empty())
      Refuse(kTokensKey, "holds an empty text as token " + std::to_string(id));
    added.push_back({{"id", id},
                     {"content", (*tokens_)[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", type != kUserDefined}});
  }
}

json Reader::PostProcessorJson() const {
  const GgufSpecialTokens& special = result_.special;
  const auto require = [&](bool add, std::optional<int32_t> id, const std::string& name) {
    if (!add || id) return;
    Refuse("tokenizer.ggml.add_" + name + "_token", "is true, but no such token is named");
  };
  require(special.add_bos, special.bos, "bos");
  require(special.add_eos, special.eos, "eos");
  if (!special.add_bos && !special.add_eos) return nullptr;
  json tokens = json::object();
  const auto token_piece = [&](int32_t id) -> json {
    const std::string& text = (*tokens_)[static_cast<size_t>(id)];
    tokens[text] = {{"id", text}, {"ids", {id}}, {"tokens", {text}}};
    return {{"SpecialToken", {{"id", text}, {"type_id", 0}}}};
  };
  json single = json::array();
  json pair = json::array();
  for (const char* text : {"A", "B"}) {
    json part = json::array();
    if (special.add_bos) part.push_back(token_piece(*special.bos));
    part.push_back({{"Sequence", {{"id", text}, {"type_id", *text == 'A' ? 0 : 1}}}});
    if (special.add_eos) part.push_back(token_piece(*special.eos));
    if (*text == 'A') single = part;
    pair.insert(pair.end(), part.begin(), part.end());
  }
  return {{"type", "TemplateProcessing"},
          {"single", single},
          {"pair", pair},
          {"special_tokens", tokens}};
}

}  // namespace

GgufTokenizer ReadGgufTokenizer(const GgufMetadata& metadata, const std::string& pre) {
  return Reader(metadata, pre).Take();
}

}  // namespace quantmill
