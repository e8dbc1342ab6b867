// What a token of a vocabulary is, as tokenizer.ggml.token_type has it. Private to formats/.
#ifndef QUANTMILL_FORMATS_GGUF_TOKEN_TYPE_H_
#define QUANTMILL_FORMATS_GGUF_TOKEN_TYPE_H_

#include <cstdint>

namespace quantmill {

enum GgufTokenType : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_TOKEN_TYPE_H_
