// The split patterns that llama.cpp has built in, by name. Private to formats/.
#ifndef QUANTMILL_FORMATS_GGUF_PRE_TOKENIZER_NAMES_H_
#define QUANTMILL_FORMATS_GGUF_PRE_TOKENIZER_NAMES_H_

#include <nlohmann/json.hpp>
#include <string_view>

namespace quantmill {

// The value of tokenizer.ggml.pre with which llama.cpp splits words as `pre_tokenizer` (the part of
// tokenizer.json) does; "" if none is known. ignore_merges: of the BPE model, which llama.cpp also
// derives from the name.
std::string_view PreTokenizerName(const nlohmann::json& pre_tokenizer, bool ignore_merges);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_PRE_TOKENIZER_NAMES_H_
