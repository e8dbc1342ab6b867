#include "formats/gguf/vocabulary.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "formats/gguf/pre_tokenizer_names.h"
#include "formats/gguf/sentencepiece_scores.h"
#include "formats/gguf/token_type.h"
#include "formats/json.h"
#include "formats/tokenizer/json_components.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/tokenizer_file.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

using nlohmann::json;

json ReadOptional(const Checkpoint& model, const std::string& name) {
  const std::optional<std::string> text = model.ReadFile(name);
  return text ? ParseJson(*text, model.PathOf(name)) : json::object();
}

// One model's tokenizer on its way into metadata. Borrows the model.
class Vocabulary {
 public:
  Vocabulary(const Checkpoint& model, int64_t rows, const std::string& pre)
      : model_(model),
        where_(model.PathOf("tokenizer.json")),
        rows_(rows),
        text_(ReadText()),
        file_(ParseTokenizerFile(text_, where_)),
        tokenizer_(Tokenizer::FromJson(text_, where_)),
        settings_(ReadOptional(model, "tokenizer_config.json")) {
    CheckModel();
    ListTokens();
    if (Part("model").value("byte_fallback", false)) {
      AddSentencePiece(pre);
    } else {
      AddByteLevel(pre);
    }
    AddSpecialTokens();
    AddChatTemplate();
  }

  std::vector<GgufEntry> Take() && { return std::move(entries_); }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    throw Error(ErrorCode::kBadInput, where_, what);
  }

  std::string ReadText() const {
    std::optional<std::string> text = model_.ReadFile("tokenizer.json");
    if (!text) Refuse("missing: a gguf file holds the model's tokenizer");
    return *std::move(text);
  }

  void Add(std::string key, GgufValue value) {
    entries_.push_back({std::move(key), std::move(value)});
  }

  const json& Part(const char* name) const {
    static const json none;
    const auto found = file_.tree.find(name);
    return found == file_.tree.end() ? none : *found;
  }

  void CheckModel() const;
  // The name to write: `given`, or if that is "" the one that is found.
  std::string FindPre(const std::string& given) const;
  void CheckPre(const std::string& given, std::string_view found) const;
  void ListTokens();
  void AddTokens();
  void AddByteLevel(const std::string& pre);
  void AddMerges();
  void AddSentencePiece(const std::string& pre);
  std::optional<int32_t> SpecialToken(const std::string& name) const;
  void AddSpecialTokens();
  void AddChatTemplate();

  const Checkpoint& model_;
  std::string where_;
  int64_t rows_;
  std::string text_;
  TokenizerFile file_;
  Tokenizer tokenizer_;
  json settings_;
  std::vector<std::string> tokens_;  // by id, fillers too
  std::vector<int32_t> types_;       // GgufTokenType
  std::vector<GgufEntry> entries_;
};

// What is checked here Tokenizer has read, so that types are right.
void Vocabulary::CheckModel() const {
  const json& model = Part("model");
  const auto text = [&](const char* name) {
    const auto found = model.find(name);
    return found != model.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (!text("continuing_subword_prefix").empty() || !text("end_of_word_suffix").empty()) {
    Refuse("model: pieces with a prefix or suffix are unknown to llama.cpp");
  }
  if (tokenizer_.vocab_size() > rows_) {
    Refuse("has " + std::to_string(tokenizer_.vocab_size()) + " tokens, but the embedding only " +
           std::to_string(rows_) + " rows");
  }
}

std::string Vocabulary::FindPre(const std::string& given) const {
  const json& pre = Part("pre_tokenizer");
  const std::string_view name = PreTokenizerName(pre, Part("model").value("ignore_merges", false));
  if (!given.empty()) {
    CheckPre(given, name);
    return given;
  }
  if (!name.empty()) return std::string(name);
  Refuse("pre_tokenizer: " + pre.dump(-1, ' ', false, json::error_handler_t::replace) +
         " is not one of those known to be built into llama.cpp; if you know the name that stands "
         "for it there, give it with --gguf-pre");
}

// A name that llama.cpp might have; where the patterns are known, one that stands for them.
void Vocabulary::CheckPre(const std::string& given, std::string_view found) const {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kUsage, "--gguf-pre", "'" + given + "' " + why);
  };
  const bool is_name = std::ranges::all_of(given, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
  if (!is_name) refuse("is no name of a pre-tokenizer");
  if (found.empty() || given == found) return;
  const std::optional<NamedPreTokenizer> named = PreTokenizerNamed(given);
  if (named && PreTokenizerName(named->pre_tokenizer, named->ignore_merges) == found) return;
  refuse("does not stand for the patterns of " + where_ + ", which are those of '" +
         std::string(found) + "'; leave it out");
}

void Vocabulary::ListTokens() {
  tokens_.resize(static_cast<size_t>(rows_));
  types_.assign(tokens_.size(), kUnused);
  for (size_t id = 0; id < tokens_.size(); ++id) tokens_[id] = "[PAD" + std::to_string(id) + "]";
  for (const auto& [token, id] : file_.vocab) {
    tokens_[static_cast<size_t>(id)] = token;
    types_[static_cast<size_t>(id)] = kNormal;
  }
  if (const json& added = Part("added_tokens"); !added.is_null()) {
    for (const AddedToken& token : ReadAddedTokens(added, where_ + ": added_tokens")) {
      tokens_[static_cast<size_t>(token.id)] = token.content;
      types_[static_cast<size_t>(token.id)] = token.special ? kControl : kUserDefined;
    }
  }
}

void Vocabulary::AddTokens() {
  Add("tokenizer.ggml.tokens", GgufArray(tokens_));
  Add("tokenizer.ggml.token_type", GgufArray(types_));
}

void Vocabulary::AddByteLevel(const std::string& pre) {
  const json& normalizer = Part("normalizer");
  if (!normalizer.is_null() && normalizer.value("type", "") != "NFC") {
    Refuse("normalizer: llama.cpp does not apply " + normalizer.value("type", "") +
           " to byte-level BPE");
  }
  Add("tokenizer.ggml.model", std::string("gpt2"));
  Add("tokenizer.ggml.pre", FindPre(pre));
  AddTokens();
  AddMerges();
  Add("tokenizer.ggml.add_space_prefix", false);
}

void Vocabulary::AddSentencePiece(const std::string& pre) {
  int bytes = 0;
  for (size_t id = 0; id < tokens_.size(); ++id) {
    if (types_[id] != kNormal || ByteOfToken(tokens_[id]) < 0) continue;
    types_[id] = kByte;
    ++bytes;
  }
  if (bytes != 256) {
    Refuse("model: byte_fallback with " + std::to_string(bytes) +
           " tokens for bytes; llama.cpp wants all 256");
  }
  const std::string unknown = Part("model").value("unk_token", json()).is_string()
                                  ? Part("model").at("unk_token").get<std::string>()
                                  : std::string();
  const auto found = std::ranges::find(tokens_, unknown);
  if (found != tokens_.end()) types_[static_cast<size_t>(found - tokens_.begin())] = kUnknown;
  Add("tokenizer.ggml.model", std::string("llama"));
  Add("tokenizer.ggml.pre", pre.empty() ? std::string("default") : pre);
  AddTokens();
  Add("tokenizer.ggml.scores", GgufArray(ScoresFromMerges(tokens_, types_, file_.merges, where_)));
  Add("tokenizer.ggml.add_space_prefix",
      AddsSpacePrefix(Part("normalizer"), Part("pre_tokenizer"), where_));
}

void Vocabulary::AddMerges() {
  // The reader cuts a merge at its only space; one inside of a piece is spelled as its byte is.
  const auto spelled = [](const std::string& piece) {
    std::string result;
    for (const char c : piece) result += c == ' ' ? std::string("\u0120") : std::string(1, c);
    return result;
  };
  std::vector<std::string> merges;
  merges.reserve(file_.merges.size());
  for (const auto& [left, right] : file_.merges) {
    merges.push_back(spelled(left) + " " + spelled(right));
  }
  if (merges.empty()) Refuse("model: has no merges, without which llama.cpp cannot read it");
  Add("tokenizer.ggml.merges", GgufArray(std::move(merges)));
}

// `name`: "bos", "eos"... As a text in tokenizer_config.json, else as an id in config.json.
std::optional<int32_t> Vocabulary::SpecialToken(const std::string& name) const {
  const auto text = settings_.find(name + "_token");
  if (text != settings_.end() && !text->is_null()) {
    const std::string where = model_.PathOf("tokenizer_config.json");
    const json& content = text->is_object() ? text->value("content", json()) : *text;
    if (!content.is_string()) {
      throw Error(ErrorCode::kBadInput, where, name + "_token is no text");
    }
    const auto id = tokenizer_.TokenToId(content.get<std::string>());
    if (id) return id;
    throw Error(ErrorCode::kBadInput, where, name + "_token is not in the vocabulary");
  }
  const json& config = model_.config();
  const auto id = config.find(name + "_token_id");
  if (id == config.end()) return std::nullopt;
  const json& first = id->is_array() && !id->empty() ? id->front() : *id;
  if (!first.is_number_unsigned() || first.get<uint64_t>() >= static_cast<uint64_t>(rows_)) {
    return std::nullopt;
  }
  return first.get<int32_t>();
}

void Vocabulary::AddSpecialTokens() {
  const std::vector<int32_t> bare = tokenizer_.Encode("a", false);
  std::vector<int32_t> whole = tokenizer_.Encode("a", true);
  std::optional<int32_t> bos = SpecialToken("bos");
  const std::optional<int32_t> eos = SpecialToken("eos");
  if (!eos) Refuse("no end-of-sequence token is named, and llama.cpp would take another for it");
  const bool add_bos = whole.size() > bare.size() && whole.front() != bare.front();
  if (add_bos) {
    if (!bos) bos = whole.front();
    if (*bos != whole.front()) {
      Refuse("post_processor: puts token " + std::to_string(whole.front()) +
             " before a text, but the BOS token is " + std::to_string(*bos));
    }
    whole.erase(whole.begin());
  }
  const bool add_eos = whole.size() > bare.size() && whole.back() == *eos;
  if (add_eos) whole.pop_back();
  if (whole != bare) Refuse("post_processor: adds tokens other than BOS and EOS to a text");
  const auto add = [&](const char* key, std::optional<int32_t> id) {
    if (id) Add(key, static_cast<uint32_t>(*id));
  };
  // Without a BOS the reader would take token 11.
  add("tokenizer.ggml.bos_token_id", bos ? bos : eos);
  add("tokenizer.ggml.eos_token_id", eos);
  add("tokenizer.ggml.unknown_token_id", SpecialToken("unk"));
  add("tokenizer.ggml.padding_token_id", SpecialToken("pad"));
  Add("tokenizer.ggml.add_bos_token", add_bos);
  Add("tokenizer.ggml.add_eos_token", add_eos);
}

void Vocabulary::AddChatTemplate() {
  // Newer checkpoints keep it apart, and it then counts.
  if (std::optional<std::string> separate = model_.ReadFile("chat_template.jinja")) {
    Add("tokenizer.chat_template", *std::move(separate));
    return;
  }
  const auto found = settings_.find("chat_template");
  if (found == settings_.end()) return;
  if (found->is_string()) Add("tokenizer.chat_template", found->get<std::string>());
  if (!found->is_array()) return;
  for (const json& entry : *found) {
    if (!entry.is_object() || entry.value("name", json()) != "default") continue;
    const json text = entry.value("template", json());
    if (text.is_string()) Add("tokenizer.chat_template", text.get<std::string>());
  }
}

}  // namespace

std::vector<GgufEntry> DescribeVocabulary(const Checkpoint& model, int64_t rows,
                                          const std::string& pre) {
  return Vocabulary(model, rows, pre).Take();
}

}  // namespace quantmill
