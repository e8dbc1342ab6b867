// A GGUF file opened as a model: the checkpoint that it was made from, as far as it can be told.
#ifndef QUANTMILL_QUANT_MODEL_GGUF_MODEL_H_
#define QUANTMILL_QUANT_MODEL_GGUF_MODEL_H_

#include <memory>
#include <optional>
#include <string>

#include "formats/artifact.h"
#include "formats/checkpoint.h"

namespace quantmill {

// How the tensors of a GGUF file are seen. Other models do not heed it.
struct GgufReading {
  // Linear layers keep their codes where QuantizedLinear holds them exactly (formats/gguf/
  // code_reader.h); false: all are decoded, as what starts from dense weights needs it.
  bool codes = true;
  // The type of decoded matrices; nothing: F32, F16 and BF16 stay, other types become F16 (rounded
  // to nearest). What GGUF always stores as F32 (GgufFloats) becomes the type of the matrices where
  // that holds every value exactly, and stays F32 otherwise.
  std::optional<DType> dense = std::nullopt;
  std::string pre = {};  // instead of tokenizer.ggml.pre; "": as the file says
};

// What a model is read from.
struct ModelFiles {
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<ArtifactReader> artifact;  // of `checkpoint`; null where all weights are dense
};

// A folder or hub id (Checkpoint::Open, OpenArtifactReader), or a GGUF file.
ModelFiles OpenModelFiles(const std::string& model, const GgufReading& gguf = {});

// Whether `model` names a file that begins as GGUF does, or is called .gguf.
bool IsGguf(const std::string& model);

// Tensors have the names, shapes and order of rows of a Hugging Face checkpoint. Opens all parts of
// a model that was split. Throws Error(kBadInput): any defect of the files; what gguf_config.h and
// gguf_layout.h refuse; a tensor that is missing, of another shape or type than can be read, or
// that belongs to no layer; a vocabulary of another size than the embedding. A tokenizer that
// cannot be read is told when one of its files is asked for.
ModelFiles OpenGguf(const std::string& path, const GgufReading& reading);

// "gguf Q4_K, Q6_K": the types of an image's matrices, those of most bytes first.
std::string StoredTypes(const Checkpoint& image);
// Whether it is an image with matrices of quantized blocks.
bool HoldsBlocks(const Checkpoint& checkpoint);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_GGUF_MODEL_H_
