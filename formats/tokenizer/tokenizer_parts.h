// Internal to the tokenizer: what a Tokenizer owns.
#ifndef QUANTMILL_FORMATS_TOKENIZER_TOKENIZER_PARTS_H_
#define QUANTMILL_FORMATS_TOKENIZER_TOKENIZER_PARTS_H_

#include <memory>
#include <string>

#include "formats/tokenizer/tokenizer.h"

namespace quantmill {

struct Tokenizer::Parts {
  explicit Parts(TokenizerComponents components);

  std::string where;
  std::unique_ptr<Normalizer> normalizer;
  std::unique_ptr<PreTokenizer> pre_tokenizer;
  Bpe model;
  AddedTokens added;
  PostProcessor post_processor;
  std::unique_ptr<Decoder> decoder;  // never null
};

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_TOKENIZER_PARTS_H_
