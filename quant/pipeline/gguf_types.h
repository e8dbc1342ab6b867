// Which element type each tensor of a GGUF file gets.
#ifndef QUANTMILL_QUANT_PIPELINE_GGUF_TYPES_H_
#define QUANTMILL_QUANT_PIPELINE_GGUF_TYPES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/block_types.h"
#include "quant/model/gguf_layout.h"
#include "quant/model/model_source.h"

namespace quantmill {

// What --gguf-type and --embedding-type may say, in the order of --help.
const std::vector<std::string>& GgufTypeNames();
const std::vector<std::string>& GgufEmbeddingTypeNames();
// Those of GgufTypeNames whose codes `quantize` chooses (IsSolved, block_rows.h).
const std::vector<std::string>& SolvedGgufTypeNames();

// A matrix whose rows do not fill the blocks of the type that it was to have.
struct GgufFallback {
  size_t matrix;  // of layout.matrices
  GgmlType wanted;
  GgmlType got;
};

struct GgufTypes {
  std::vector<GgmlType> types;  // of layout.matrices
  uint32_t file_type = 0;       // general.file_type, another numbering than GgmlType
  std::string label;            // "Q4_K_M", for people
  std::vector<GgufFallback> fallbacks;
};

// Of a dense checkpoint. type: of GgufTypeNames. The head (the embedding where it is tied) gets
// Q6_K beside smaller types; q4_k_m also gives Q6_K to value and down projections of a part of the
// layers and Q5_K to q, k and v in one, as llama-quantize does (formats.md section 7.6). Rows that
// do not fill super-blocks get the next larger type of blocks of 32, rows that do not fill those
// F16. embedding_type: of embedding and head, "": as said.
GgufTypes ChooseGgufTypes(const GgufLayout& layout, std::string_view type,
                          std::string_view embedding_type);

// What a dense weight is stored as; dtype: as safetensors spells it.
GgmlType DenseGgmlType(std::string_view dtype);

// Of an artifact: types that hold its codes (formats/gguf/repack.h, whose errors these are, and
// CheckStacks); what is dense stays as it is stored, but for embedding and head where
// `embedding_type` is not "".
GgufTypes KeepGgufTypes(const GgufLayout& layout, const ModelSource& source,
                        std::string_view embedding_type);

// Experts that one tensor stacks need one type. types: of layout.matrices. Throws Error(kUsage)
// naming an expert that differs from the first.
void CheckStacks(const GgufLayout& layout, const std::vector<GgmlType>& types);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_GGUF_TYPES_H_
