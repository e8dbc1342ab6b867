#include "formats/tokenizer/json_components.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "formats/tokenizer/json_fields.h"

namespace quantmill {
namespace {

using nlohmann::json;

std::string ItemPath(const std::string& where, const char* array, size_t index) {
  return where + "." + array + "[" + std::to_string(index) + "]";
}

// Reads each element of a Sequence's array with `read`.
template <typename Result, typename Read>
std::vector<Result> ReadEach(JsonFields& fields, const char* name, Read read) {
  std::vector<Result> parts;
  const json& items = fields.Array(name);
  for (size_t i = 0; i < items.size(); ++i) {
    parts.push_back(read(items[i], ItemPath(fields.where(), name, i)));
  }
  return parts;
}

// {"String": text} or {"Regex": pattern}.
struct Pattern {
  bool is_regex;
  std::string text;
};

Pattern ReadPattern(JsonFields& fields) {
  JsonFields pattern(fields.Any("pattern"), fields.where() + ".pattern");
  const std::optional<std::string> text = pattern.OptionalString("String");
  const std::optional<std::string> regex = pattern.OptionalString("Regex");
  pattern.Finish();
  if (text.has_value() == regex.has_value()) pattern.Refuse("must have one of String and Regex");
  const std::string& value = text ? *text : *regex;
  if (value.empty()) pattern.Refuse("is empty");
  return {regex.has_value(), value};
}

SplitBehavior ReadBehavior(JsonFields& fields, const std::string& name) {
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  fields.Refuse("unknown split behavior \"" + name + "\"");
}

// Metaspace, shared by the pre-tokenizer and the decoder; also older spellings.
struct MetaspaceFields {
  std::string replacement;
  PrependScheme scheme = PrependScheme::kAlways;
  bool split = true;
};

MetaspaceFields ReadMetaspace(JsonFields& fields) {
  MetaspaceFields result;
  result.replacement = fields.CodePoint("replacement");
  const std::string scheme = fields.OptionalString("prepend_scheme").value_or("always");
  if (scheme == "first") {
    result.scheme = PrependScheme::kFirst;
  } else if (scheme == "never") {
    result.scheme = PrependScheme::kNever;
  } else if (scheme != "always") {
    fields.Refuse("unknown prepend_scheme \"" + scheme + "\"");
  }
  if (!fields.OptionalBool("add_prefix_space").value_or(true)) {
    // Files older than prepend_scheme say it this way; the reference library refuses a conflict.
    const bool stated = fields.OptionalAny("prepend_scheme") != nullptr;
    if (stated && result.scheme != PrependScheme::kNever) {
      fields.Refuse("add_prefix_space false contradicts prepend_scheme \"" + scheme + "\"");
    }
    result.scheme = PrependScheme::kNever;
  }
  result.split = fields.OptionalBool("split").value_or(true);
  fields.Ignore("str_rep");  // the reference library derives it from `replacement`
  return result;
}

std::unique_ptr<PreTokenizer> ReadPreTokenizerSequence(JsonFields& fields) {
  auto parts = ReadEach<std::unique_ptr<PreTokenizer>>(fields, "pretokenizers", ReadPreTokenizer);
  bool exact = true;
  for (const auto& part : parts) {
    if (!exact && part->NeedsStart()) {
      fields.Refuse(
          "Metaspace with prepend_scheme \"first\" after a pre-tokenizer that rewrites "
          "the text is not supported");
    }
    exact = exact && part->KeepsStart();
  }
  return MakePreTokenizerSequence(std::move(parts));
}

std::unique_ptr<PreTokenizer> ReadSplit(JsonFields& fields) {
  Pattern pattern = ReadPattern(fields);
  const SplitBehavior behavior = ReadBehavior(fields, fields.String("behavior"));
  const bool invert = fields.Bool("invert");
  if (!pattern.is_regex) return MakeSplitString(std::move(pattern.text), behavior, invert);
  return MakeSplitRegex(Regex::FromPattern(pattern.text, fields.where()), behavior, invert);
}

// One special token's ids of TemplateProcessing.special_tokens.
std::vector<int32_t> ReadTemplateIds(JsonFields& specials, const std::string& name) {
  JsonFields token(specials.Any(name.c_str()), specials.where() + "." + name);
  token.Ignore("id");
  token.Ignore("tokens");
  std::vector<int32_t> ids;
  for (const json& id : token.Array("ids")) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > uint64_t{Bpe::kMaxId}) {
      token.Refuse("\"ids\" must be token ids");
    }
    ids.push_back(id.get<int32_t>());
  }
  token.Finish();
  return ids;
}

PostProcessor ReadTemplate(JsonFields& fields) {
  JsonFields specials(fields.Any("special_tokens"), fields.where() + ".special_tokens");
  fields.Ignore("pair");  // for two texts, which quantmill never encodes together
  std::vector<int32_t> items;
  const json& single = fields.Array("single");
  for (size_t i = 0; i < single.size(); ++i) {
    JsonFields piece(single[i], ItemPath(fields.where(), "single", i));
    if (const json* sequence = piece.OptionalAny("Sequence")) {
      JsonFields which(*sequence, piece.where() + ".Sequence");
      if (which.String("id") != "A") which.Refuse("a template for one text uses a second one");
      which.Ignore("type_id");
      which.Finish();
      items.push_back(PostProcessor::kText);
    } else {
      JsonFields token(piece.Any("SpecialToken"), piece.where() + ".SpecialToken");
      const std::vector<int32_t> ids = ReadTemplateIds(specials, token.String("id"));
      token.Ignore("type_id");
      token.Finish();
      items.insert(items.end(), ids.begin(), ids.end());
    }
    piece.Finish();
  }
  return PostProcessor(std::move(items));
}

// ["text", id] of BertProcessing and RobertaProcessing.
int32_t ReadTokenPair(JsonFields& fields, const char* name) {
  const json& pair = fields.Array(name);
  const bool ok = pair.size() == 2 && pair[0].is_string() && pair[1].is_number_unsigned() &&
                  pair[1].get<uint64_t>() <= uint64_t{Bpe::kMaxId};
  if (!ok) fields.Refuse(std::string("field \"") + name + "\" must be [token, id]");
  return pair[1].get<int32_t>();
}

}  // namespace

std::unique_ptr<Normalizer> ReadNormalizer(const json& value, const std::string& where) {
  JsonFields fields(value, where);
  const std::string type = fields.String("type");
  std::unique_ptr<Normalizer> result;
  if (type == "Sequence") {
    result = MakeNormalizerSequence(
        ReadEach<std::unique_ptr<Normalizer>>(fields, "normalizers", ReadNormalizer));
  } else if (type == "NFC") {
    result = MakeUnicodeNormalizer(UnicodeForm::kNfc);
  } else if (type == "NFD") {
    result = MakeUnicodeNormalizer(UnicodeForm::kNfd);
  } else if (type == "NFKC") {
    result = MakeUnicodeNormalizer(UnicodeForm::kNfkc);
  } else if (type == "NFKD") {
    result = MakeUnicodeNormalizer(UnicodeForm::kNfkd);
  } else if (type == "Lowercase") {
    result = MakeLowercase();
  } else if (type == "Prepend") {
    result = MakePrepend(fields.String("prepend"));
  } else if (type == "Replace") {
    Pattern pattern = ReadPattern(fields);
    std::string content = fields.String("content");
    result = pattern.is_regex
                 ? MakeReplaceRegex(Regex::FromPattern(pattern.text, where), std::move(content))
                 : MakeReplaceString(std::move(pattern.text), std::move(content));
  } else if (type == "Strip") {
    const bool left = fields.Bool("strip_left");
    result = MakeStripNormalizer(left, fields.Bool("strip_right"));
  } else if (type == "ByteLevel") {
    result = MakeByteLevelNormalizer();
  } else {
    fields.Refuse("normalizer \"" + type + "\" is not supported");
  }
  fields.Finish();
  return result;
}

std::unique_ptr<PreTokenizer> ReadPreTokenizer(const json& value, const std::string& where) {
  JsonFields fields(value, where);
  const std::string type = fields.String("type");
  std::unique_ptr<PreTokenizer> result;
  if (type == "Sequence") {
    result = ReadPreTokenizerSequence(fields);
  } else if (type == "ByteLevel") {
    fields.Ignore("trim_offsets");  // offsets are not computed
    const bool add_prefix_space = fields.Bool("add_prefix_space");
    result = MakeByteLevel(add_prefix_space, fields.OptionalBool("use_regex").value_or(true));
  } else if (type == "Split") {
    result = ReadSplit(fields);
  } else if (type == "Digits") {
    result = MakeDigits(fields.Bool("individual_digits"));
  } else if (type == "Metaspace") {
    MetaspaceFields metaspace = ReadMetaspace(fields);
    result = MakeMetaspace(std::move(metaspace.replacement), metaspace.scheme, metaspace.split);
  } else if (type == "Punctuation") {
    result = MakePunctuation(
        ReadBehavior(fields, fields.OptionalString("behavior").value_or("Isolated")));
  } else if (type == "Whitespace") {
    result = MakeWhitespace();
  } else if (type == "WhitespaceSplit") {
    result = MakeWhitespaceSplit();
  } else if (type == "CharDelimiterSplit") {
    result = MakeSplitString(fields.CodePoint("delimiter"), SplitBehavior::kRemoved, false);
  } else {
    fields.Refuse("pre-tokenizer \"" + type + "\" is not supported");
  }
  fields.Finish();
  return result;
}

PostProcessor ReadPostProcessor(const json& value, const std::string& where) {
  JsonFields fields(value, where);
  const std::string type = fields.String("type");
  PostProcessor result;
  if (type == "Sequence") {
    // The reference library applies a second one to each item of the first one's template.
    for (PostProcessor& part : ReadEach<PostProcessor>(fields, "processors", ReadPostProcessor)) {
      if (part.AddsNothing()) continue;
      if (!result.AddsNothing()) fields.Refuse("two parts that add tokens are not supported");
      result = std::move(part);
    }
  } else if (type == "ByteLevel") {  // only moves offsets, which are not computed
    fields.Ignore("add_prefix_space");
    fields.Ignore("trim_offsets");
    fields.Ignore("use_regex");
  } else if (type == "TemplateProcessing") {
    result = ReadTemplate(fields);
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    fields.Ignore("trim_offsets");
    fields.Ignore("add_prefix_space");
    const int32_t cls = ReadTokenPair(fields, "cls");
    result = PostProcessor({cls, PostProcessor::kText, ReadTokenPair(fields, "sep")});
  } else {
    fields.Refuse("post-processor \"" + type + "\" is not supported");
  }
  fields.Finish();
  return result;
}

std::unique_ptr<Decoder> ReadDecoder(const json& value, const std::string& where) {
  JsonFields fields(value, where);
  const std::string type = fields.String("type");
  std::unique_ptr<Decoder> result;
  if (type == "Sequence") {
    result =
        MakeDecoderSequence(ReadEach<std::unique_ptr<Decoder>>(fields, "decoders", ReadDecoder));
  } else if (type == "ByteLevel") {
    fields.Ignore("add_prefix_space");  // the three are the pre-tokenizer's
    fields.Ignore("trim_offsets");
    fields.Ignore("use_regex");
    result = MakeByteLevelDecoder();
  } else if (type == "ByteFallback") {
    result = MakeByteFallback();
  } else if (type == "Fuse") {
    result = MakeFuse();
  } else if (type == "Strip") {
    const int64_t start = fields.Integer("start");
    const int64_t stop = fields.Integer("stop");
    if (start < 0 || stop < 0) fields.Refuse("start and stop must not be negative");
    result = MakeStripDecoder(fields.CodePoint("content"), static_cast<size_t>(start),
                              static_cast<size_t>(stop));
  } else if (type == "Replace") {
    Pattern pattern = ReadPattern(fields);
    std::string content = fields.String("content");
    result =
        pattern.is_regex
            ? MakeReplaceRegexDecoder(Regex::FromPattern(pattern.text, where), std::move(content))
            : MakeReplaceStringDecoder(std::move(pattern.text), std::move(content));
  } else if (type == "Metaspace") {
    MetaspaceFields metaspace = ReadMetaspace(fields);
    result = MakeMetaspaceDecoder(std::move(metaspace.replacement),
                                  metaspace.scheme != PrependScheme::kNever);
  } else if (type == "BPEDecoder") {
    std::string suffix = fields.String("suffix");
    if (suffix.empty()) fields.Refuse("an empty suffix is not supported");
    result = MakeBpeDecoder(std::move(suffix));
  } else {
    fields.Refuse("decoder \"" + type + "\" is not supported");
  }
  fields.Finish();
  return result;
}

std::vector<AddedToken> ReadAddedTokens(const json& value, const std::string& where) {
  std::vector<AddedToken> tokens;
  if (!value.is_array()) JsonFields(value, where).Refuse("must be an array");
  for (size_t i = 0; i < value.size(); ++i) {
    JsonFields fields(value[i], where + "[" + std::to_string(i) + "]");
    AddedToken token;
    token.id = fields.Integer("id");
    token.content = fields.String("content");
    token.single_word = fields.Bool("single_word");
    token.lstrip = fields.Bool("lstrip");
    token.rstrip = fields.Bool("rstrip");
    token.normalized = fields.Bool("normalized");
    token.special = fields.Bool("special");
    fields.Finish();
    tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace quantmill
