// Tokenizer from tokenizer.json.
#include <fstream>
#include <optional>
#include <sstream>
#include <utility>

#include "formats/tokenizer/json_components.h"
#include "formats/tokenizer/json_fields.h"
#include "formats/tokenizer/tokenizer.h"
#include "formats/tokenizer/tokenizer_file.h"
#include "kernels/core/error.h"

namespace quantmill {
namespace {

BpeConfig ReadModel(TokenizerFile& file, JsonFields& root) {
  JsonFields fields(root.Any("model"), root.where() + ": model");
  const std::string type = fields.OptionalString("type").value_or("BPE");  // old files have none
  if (type != "BPE") fields.Refuse("model \"" + type + "\" is not supported; only BPE is");
  if (!file.has_vocab) fields.Refuse("has no object \"vocab\"");
  if (!file.has_merges) fields.Refuse("has no array \"merges\"");
  if (fields.OptionalAny("dropout") != nullptr) {
    fields.Refuse("dropout makes the tokens random and is not supported; set it to null");
  }
  BpeConfig config;
  config.vocab = std::move(file.vocab);
  config.merges = std::move(file.merges);
  config.unk_token = fields.OptionalString("unk_token");
  config.continuing_subword_prefix =
      fields.OptionalString("continuing_subword_prefix").value_or("");
  config.end_of_word_suffix = fields.OptionalString("end_of_word_suffix").value_or("");
  config.fuse_unk = fields.OptionalBool("fuse_unk").value_or(false);
  config.byte_fallback = fields.OptionalBool("byte_fallback").value_or(false);
  config.ignore_merges = fields.OptionalBool("ignore_merges").value_or(false);
  fields.Ignore("vocab");
  fields.Ignore("merges");
  fields.Finish();
  return config;
}

}  // namespace

Tokenizer Tokenizer::FromJson(std::string_view text, const std::string& where) {
  TokenizerFile file = ParseTokenizerFile(text, where);
  JsonFields root(file.tree, where);
  TokenizerComponents components;
  components.where = where;
  const std::optional<std::string> version = root.OptionalString("version");
  if (version && *version != "1.0") root.Refuse("unknown version \"" + *version + "\"");
  root.Ignore("truncation");
  root.Ignore("padding");
  components.model = ReadModel(file, root);
  if (const auto* value = root.OptionalAny("added_tokens")) {
    components.added_tokens = ReadAddedTokens(*value, where + ": added_tokens");
  }
  if (const auto* value = root.OptionalAny("normalizer")) {
    components.normalizer = ReadNormalizer(*value, where + ": normalizer");
  }
  if (const auto* value = root.OptionalAny("pre_tokenizer")) {
    components.pre_tokenizer = ReadPreTokenizer(*value, where + ": pre_tokenizer");
  }
  if (const auto* value = root.OptionalAny("post_processor")) {
    components.post_processor = ReadPostProcessor(*value, where + ": post_processor");
  }
  if (const auto* value = root.OptionalAny("decoder")) {
    components.decoder = ReadDecoder(*value, where + ": decoder");
  }
  root.Finish();
  return Tokenizer(std::move(components));
}

Tokenizer Tokenizer::FromFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream text;
  if (in) text << in.rdbuf();  // an empty file only sets failbit
  if (!in.is_open() || in.bad() || text.bad()) {
    throw Error(ErrorCode::kEnvironment, path, "cannot be read");
  }
  return FromJson(text.str(), path);
}

}  // namespace quantmill
