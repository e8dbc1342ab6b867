// Linear layers of a GGUF model as quantized codes, where QuantizedLinear holds them exactly.
#ifndef QUANTMILL_FORMATS_GGUF_CODE_READER_H_
#define QUANTMILL_FORMATS_GGUF_CODE_READER_H_

#include <memory>

#include "formats/artifact.h"
#include "formats/gguf/block_types.h"
#include "formats/gguf/decoded_tensors.h"

namespace quantmill {

// Whether codes of this type are symmetric integers with one F16 scale for 32 inputs (Q4_0, Q5_0
// and Q8_0), or E2M1 numbers with a power of two (MXFP4). Others are decoded: their offsets and
// levels are no zero points.
bool HasCodes(GgmlType type);

// `checkpoint` is an image whose tensors are `tensors`; both must outlive the reader. Modules are
// the tensors "<module>.weight" of two dimensions and a type with codes, but those in `dense`
// (embeddings). A block whose scale is 0 is read as codes 0 of scale 1: the same values.
std::unique_ptr<ArtifactReader> OpenGgufCodes(const Checkpoint& checkpoint,
                                              const GgufTensors& tensors,
                                              const std::vector<std::string>& dense);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GGUF_CODE_READER_H_
