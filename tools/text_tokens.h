// The token ids that models are evaluated on.
#ifndef QUANTMILL_TOOLS_TEXT_TOKENS_H_
#define QUANTMILL_TOOLS_TEXT_TOKENS_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "formats/tokenizer/tokenizer.h"
#include "quant/model/model_source.h"

namespace quantmill {

struct TextTokens {
  std::vector<int32_t> ids;
  std::optional<int32_t> bos;  // what the tokenizer puts before a text, if it does
};

// The text of a file, encoded once by the tokenizer of the first model, special tokens at its start
// where the tokenizer adds them. Error(kBadInput) naming a model whose tokenizer encodes it
// differently: results on different tokens cannot be compared.
TextTokens TokenizeText(const std::string& path, const std::deque<ModelSource>& models);

// Token ids of a JSON file, each in the vocabulary of every model.
TextTokens ReadTokensFile(const std::string& path, const std::deque<ModelSource>& models);

// The special token that `tokenizer` puts before every text.
std::optional<int32_t> BosOf(const Tokenizer& tokenizer);

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_TEXT_TOKENS_H_
