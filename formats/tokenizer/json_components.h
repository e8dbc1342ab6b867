// The components that tokenizer.json names, from their JSON.
#ifndef QUANTMILL_FORMATS_TOKENIZER_JSON_COMPONENTS_H_
#define QUANTMILL_FORMATS_TOKENIZER_JSON_COMPONENTS_H_

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "formats/tokenizer/added_tokens.h"
#include "formats/tokenizer/decoder.h"
#include "formats/tokenizer/normalizer.h"
#include "formats/tokenizer/post_processor.h"
#include "formats/tokenizer/pre_tokenizer.h"

namespace quantmill {

// Each reads one component and throws Error(kBadInput) whose `where` is "file: path in the file"
// for a type or field that is not known or has the wrong form. `where` is the component's own path.
std::unique_ptr<Normalizer> ReadNormalizer(const nlohmann::json& value, const std::string& where);
std::unique_ptr<PreTokenizer> ReadPreTokenizer(const nlohmann::json& value,
                                               const std::string& where);
PostProcessor ReadPostProcessor(const nlohmann::json& value, const std::string& where);
std::unique_ptr<Decoder> ReadDecoder(const nlohmann::json& value, const std::string& where);
// The array `added_tokens`.
std::vector<AddedToken> ReadAddedTokens(const nlohmann::json& value, const std::string& where);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_JSON_COMPONENTS_H_
