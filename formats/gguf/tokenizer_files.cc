#include "formats/gguf/tokenizer_files.h"

#include <string_view>
#include <utility>
#include <vector>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

using nlohmann::json;

constexpr std::string_view kTemplateKey = "tokenizer.chat_template";

// The template, or a list of named ones as transformers keeps them; null for none.
json ChatTemplates(const GgufMetadata& metadata) {
  const std::string* plain = metadata.Text(kTemplateKey);
  json named = json::array();
  const std::string prefix = std::string(kTemplateKey) + ".";
  for (const GgufEntry& entry : metadata.entries()) {
    if (!entry.key.starts_with(prefix)) continue;
    named.push_back(
        {{"name", entry.key.substr(prefix.size())}, {"template", *metadata.Text(entry.key)}});
  }
  if (named.empty()) return plain == nullptr ? json() : json(*plain);
  if (plain != nullptr) named.push_back({{"name", "default"}, {"template", *plain}});
  return named;
}

std::string Text(const json& value, const std::string& where) {
  try {
    return value.dump(1) + "\n";
  } catch (const json::exception&) {
    throw Error(ErrorCode::kBadInput, where, "its chat template is not valid UTF-8");
  }
}

}  // namespace

std::map<std::string, std::string> TokenizerFiles(const GgufMetadata& metadata,
                                                  const GgufTokenizer& tokenizer,
                                                  int64_t max_length) {
  const auto& tokens = *metadata.Array<std::string>("tokenizer.ggml.tokens");
  const GgufSpecialTokens& special = tokenizer.special;
  json names = json::object();
  json generation = json::object();
  const auto add = [&](const std::string& name, std::optional<int32_t> id) {
    if (!id) return;
    names[name + "_token"] = tokens[static_cast<size_t>(*id)];
    if (name != "unk") generation[name + "_token_id"] = *id;
  };
  add("bos", special.bos);
  add("eos", special.eos);
  add("unk", special.unk);
  add("pad", special.pad);
  if (special.ends.size() > 1) generation["eos_token_id"] = special.ends;

  json config = names;
  // The class that takes tokenizer.json as it is; those of single models rebuild parts of it.
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  config["clean_up_tokenization_spaces"] = false;
  config["model_max_length"] = max_length;
  if (json chat = ChatTemplates(metadata); !chat.is_null()) config["chat_template"] = chat;
  const std::string& where = metadata.where();
  return {{"tokenizer.json", tokenizer.json.dump() + "\n"},
          {"tokenizer_config.json", Text(config, where)},
          {"special_tokens_map.json", Text(names, where)},
          {"generation_config.json", Text(generation, where)}};
}

}  // namespace quantmill
