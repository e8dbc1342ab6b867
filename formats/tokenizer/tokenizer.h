// Text <-> token ids, exactly as Hugging Face tokenizers does it for BPE models.
#ifndef QUANTMILL_FORMATS_TOKENIZER_TOKENIZER_H_
#define QUANTMILL_FORMATS_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/tokenizer/added_tokens.h"
#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/decoder.h"
#include "formats/tokenizer/normalizer.h"
#include "formats/tokenizer/post_processor.h"
#include "formats/tokenizer/pre_tokenizer.h"

namespace quantmill {

// The parts of a tokenizer; tokenizer.json is one source of them, a GGUF vocabulary another.
struct TokenizerComponents {
  std::string where;                            // names the source in errors
  std::unique_ptr<Normalizer> normalizer;       // may be null
  std::unique_ptr<PreTokenizer> pre_tokenizer;  // may be null
  BpeConfig model;
  std::vector<AddedToken> added_tokens;
  PostProcessor post_processor;
  std::unique_ptr<Decoder> decoder;  // may be null: tokens joined by spaces
};

// A whole tokenizer. Immutable; every method is thread-safe and deterministic. Moving one keeps the
// addresses of its parts, so a StreamDecoder of it stays valid.
class Tokenizer {
 public:
  // Reads a tokenizer.json. `truncation` and `padding` in it are ignored, for they describe batches
  // and transformers resets both on every call. Throws Error(kBadInput) naming the file and the
  // component for invalid JSON, a component or field that is not known, an inconsistent vocabulary;
  // Error(kEnvironment) when the file cannot be read.
  static Tokenizer FromFile(const std::string& path);
  // The same from text; `where` names it in errors.
  static Tokenizer FromJson(std::string_view text, const std::string& where);

  // Throws Error(kBadInput) where the parts do not fit together.
  explicit Tokenizer(TokenizerComponents components);

  // Token ids of `text`. add_special_tokens: with those of the post-processor (BOS, EOS); added
  // tokens in the text itself are always recognised. Throws Error(kBadInput) with the byte offset
  // when `text` is not well-formed UTF-8.
  std::vector<int32_t> Encode(std::string_view text, bool add_special_tokens) const;

  // Text of `ids`, well-formed UTF-8: bytes that are not become U+FFFD. skip_special_tokens leaves
  // out added tokens that are special. (The reference library keeps those that its normalizer
  // changes; that is the one known difference.) Throws Error(kBadInput) for an id without a token,
  // which the reference library drops.
  std::string Decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  // Largest id + 1, with added tokens. A model's embedding may have more rows (padding).
  int64_t vocab_size() const;
  // Id of a token, added or not.
  std::optional<int32_t> TokenToId(std::string_view token) const;
  // Token of an id as the vocabulary spells it. Throws Error(kBadInput) for an id without a token.
  const std::string& IdToToken(int32_t id) const;
  // Whether skip_special_tokens leaves `id` out.
  bool IsSpecial(int32_t id) const;

 private:
  friend class StreamDecoder;
  // Everything behind one pointer that does not move.
  struct Parts;
  // Feeds one id to decoder stages.
  static void PushToken(const Parts& parts, int32_t id, bool skip_special_tokens,
                        DecodeSink& stages);

  std::unique_ptr<const Parts, void (*)(const Parts*)> parts_;
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_TOKENIZER_H_
