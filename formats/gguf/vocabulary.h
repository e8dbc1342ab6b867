// The tokenizer of a model as the metadata `tokenizer.*` of a GGUF file.
#ifndef QUANTMILL_FORMATS_GGUF_VOCABULARY_H_
#define QUANTMILL_FORMATS_GGUF_VOCABULARY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/gguf/metadata.h"

namespace quantmill {

// Reads tokenizer.json, and from tokenizer_config.json (or chat_template.jinja) the special tokens
// and the chat template; where the configuration names no BOS, EOS or padding token, the ids in
// config.json count. `rows`: of the embedding; ids without a token become "[PAD<id>]", unused.
//
// Byte-level BPE is written as llama.cpp's "gpt2". Its reader has the split patterns built in:
// `tokenizer.ggml.pre` names one, found by comparing the pre-tokenizer with those that are known.
// `pre`: use this name instead; "": find it. Whether BOS and EOS are added is what tokenizer.json
// does to a text.
//
// BPE with byte fallback (SentencePiece) is written as llama.cpp's "llama": scores that join the
// pieces in the order of the merges (sentencepiece_scores.h).
//
// Throws Error(kBadInput) naming the file and the part: no tokenizer.json; a tokenizer that is
// neither, or that llama.cpp would apply otherwise (normalizers but NFC, a prefix space,
// unknown tokens, other special tokens around a text); a pre-tokenizer that is not known, telling
// how to name one; more tokens than `rows`.
std::vector<GgufEntry> DescribeVocabulary(const Checkpoint& model, int64_t rows,
                                          const std::string& pre);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_VOCABULARY_H_
