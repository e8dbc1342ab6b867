// The split patterns that llama.cpp has built in, by name. Private to formats/.
#ifndef QUANTMILL_FORMATS_GGUF_PRE_TOKENIZER_NAMES_H_
#define QUANTMILL_FORMATS_GGUF_PRE_TOKENIZER_NAMES_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

namespace quantmill {

// The value of tokenizer.ggml.pre with which llama.cpp splits words as `pre_tokenizer` (the part of
// tokenizer.json) does; "" if none is known. ignore_merges: of the BPE model, which llama.cpp also
// derives from the name.
std::string_view PreTokenizerName(const nlohmann::json& pre_tokenizer, bool ignore_merges);

// What such a name stands for, as parts of a tokenizer.json.
struct NamedPreTokenizer {
  nlohmann::json normalizer;  // null, or NFC where the models of this name have it
  nlohmann::json pre_tokenizer;
  bool ignore_merges = false;
  bool adds_bos = false;  // unless tokenizer.ggml.add_bos_token says otherwise
};
// Nothing for a name whose patterns are not known exactly.
std::optional<NamedPreTokenizer> PreTokenizerNamed(std::string_view name);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_PRE_TOKENIZER_NAMES_H_
