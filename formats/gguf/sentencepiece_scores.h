// SentencePiece BPE as llama.cpp reads it, from a tokenizer.json with byte fallback: scores instead
// of merges. Private to formats/.
#ifndef QUANTMILL_FORMATS_GGUF_SENTENCEPIECE_SCORES_H_
#define QUANTMILL_FORMATS_GGUF_SENTENCEPIECE_SCORES_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace quantmill {

// One score for each token, which join pieces in the order of `merges`: 0 for the first that is
// made, and one less for each that follows, or the same where merges lie as those of one score do
// (sentencepiece_merges.h); pieces that are not made come last. tokens, types
// (GgufTokenType): by id. Throws Error(kBadInput, where) where no scores do: a merge without a
// token, merges of a piece that lie apart, a pair of pieces that make a third and are no
// merge (llama.cpp would join them).
std::vector<float> ScoresFromMerges(std::span<const std::string> tokens,
                                    std::span<const int32_t> types,
                                    std::span<const std::pair<std::string, std::string>> merges,
                                    const std::string& where);

// Whether a text begins with a space of its own before it is cut, as normalizer and pre-tokenizer
// have it. Throws Error(kBadInput, where) for what llama.cpp does otherwise.
bool AddsSpacePrefix(const nlohmann::json& normalizer, const nlohmann::json& pre_tokenizer,
                     const std::string& where);

// The byte that a token of byte fallback stands for ("<0x0A>"), or -1.
int ByteOfToken(const std::string& token);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_SENTENCEPIECE_SCORES_H_
