// tokenizer.json as data, before it is given a meaning.
#ifndef QUANTMILL_FORMATS_TOKENIZER_TOKENIZER_FILE_H_
#define QUANTMILL_FORMATS_TOKENIZER_TOKENIZER_FILE_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace quantmill {

// Parsed JSON. The two long parts of the model are kept apart from the tree, which makes loading
// several times faster; in `tree` they are null.
struct TokenizerFile {
  nlohmann::json tree;
  bool has_vocab = false;                                   // model.vocab was an object
  bool has_merges = false;                                  // model.merges was an array
  std::vector<std::pair<std::string, int64_t>> vocab;       // in the order of the file
  std::vector<std::pair<std::string, std::string>> merges;  // both forms, split
};

// Parses `text`. Throws Error(kBadInput, where): invalid JSON (with the byte), a key that comes
// twice in one object, nesting deeper than 64, an entry of model.vocab that is no integer, an entry
// of model.merges that is neither "a b" nor ["a", "b"], or a mixture of the two.
TokenizerFile ParseTokenizerFile(std::string_view text, const std::string& where);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_TOKENIZER_TOKENIZER_FILE_H_
