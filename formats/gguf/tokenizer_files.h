// The tokenizer in the metadata of a GGUF file, as the files of a Hugging Face folder.
#ifndef QUANTMILL_FORMATS_GGUF_TOKENIZER_FILES_H_
#define QUANTMILL_FORMATS_GGUF_TOKENIZER_FILES_H_

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "formats/gguf/metadata.h"

namespace quantmill {

// The tokens that a file gives a meaning, by id; each is one of the vocabulary.
struct GgufSpecialTokens {
  std::optional<int32_t> bos, eos, unk, pad;
  std::vector<int32_t> ends;  // of a turn too: eos, then eot and eom where they differ
  bool add_bos = false;       // before every text, and eos behind
  bool add_eos = false;
};

// tokenizer.json of `tokenizer.ggml.*`:
//   "gpt2"   byte-level BPE, split as the name tokenizer.ggml.pre says (pre_tokenizer_names.h)
//   "llama"  SentencePiece: merges made of the scores, bytes for what no piece covers, a space put
//            before a text unless tokenizer.ggml.add_space_prefix says no
// Control tokens are special added tokens, user-defined ones added tokens; "[PAD<id>]" that nothing
// uses are left out. `pre`: instead of tokenizer.ggml.pre; "": as the file says.
//
// Throws Error(kBadInput) naming the file, the key and the token: another model (WordPiece,
// unigram...), a name whose patterns are not known, a missing or too short array, tokens that are
// no UTF-8 or of equal text, merges of what is no token, scores that rank nothing, ids that are no
// token.
struct GgufTokenizer {
  nlohmann::json json;  // tokenizer.json
  GgufSpecialTokens special;
  int64_t tokens = 0;  // with the unused ones: what the embedding must have rows for
};
GgufTokenizer ReadGgufTokenizer(const GgufMetadata& metadata, const std::string& pre);

// Name -> content: tokenizer.json, tokenizer_config.json (with the chat templates),
// special_tokens_map.json, generation_config.json. max_length: tokens of a text, for
// tokenizer_config.json.
std::map<std::string, std::string> TokenizerFiles(const GgufMetadata& metadata,
                                                  const GgufTokenizer& tokenizer,
                                                  int64_t max_length);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_TOKENIZER_FILES_H_
