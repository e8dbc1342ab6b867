// BPE merges of a SentencePiece vocabulary, which stores scores instead. Private to formats/.
#ifndef QUANTMILL_FORMATS_GGUF_SENTENCEPIECE_MERGES_H_
#define QUANTMILL_FORMATS_GGUF_SENTENCEPIECE_MERGES_H_

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace quantmill {

// SentencePiece joins the neighbours whose joint piece has the highest score. As merges: each way
// in which a piece is made of two others, pieces of higher score first, and in transformers' order
// where scores are equal (the longer left part first). pieces: well-formed UTF-8, all different;
// those that take no part (control, byte, unknown) are "". scores: one for each, no NaN.
std::vector<std::pair<std::string, std::string>> MergesFromScores(
    std::span<const std::string> pieces, std::span<const float> scores);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_SENTENCEPIECE_MERGES_H_
