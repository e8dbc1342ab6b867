// GPTQ files, as AutoGPTQ, GPTQModel, vLLM, SGLang and transformers read them. Per module (N
// outputs, K inputs, b bits, G groups):
//
//   qweight  I32  [K b / 32, N]   code + 2^(b-1), lowest bits first, along K: column n is one dense
//                                 bitstream (3 bits: 32 codes in 3 words)
//   qzeros   I32  [G, N b / 32]   likewise along N: the zero point z (2^(b-1) when symmetric); in
//                                 version 1 it is stored less one, modulo 2^b
//   scales   F16  [G, N]
//   g_idx    I32  [K]             the group of each input: k / group_size
//   value = (code - zero_point) * scale, both in the same convention
//
// Version 1 is `checkpoint_format: gptq`, version 2 `gptq_v2`. b is 2, 3, 4 or 8; N and K are
// multiples of 32. The configuration says the scheme of all modules and, by `dynamic`, of those
// that differ or are left dense (formats.md section 2).
#ifndef QUANTMILL_FORMATS_GPTQ_H_
#define QUANTMILL_FORMATS_GPTQ_H_

#include <memory>

#include "formats/artifact.h"

namespace quantmill {

// "gptq" and "gptq_v2". Write throws Error(kUsage) for an asymmetric group with zero point -2^(b-1)
// in version 1: stored less one it wraps, which readers undo in different ways.
const ArtifactWriterFormat& GptqFormat();
const ArtifactWriterFormat& GptqV2Format();

// `checkpoint` has quantization_config.quant_method "gptq" and must outlive the reader. Groups
// whose inputs act-order scattered (g_idx) become groups of the runs of inputs that share one, down
// to single inputs: the same values. Refused by name: marlin files, other pack types, wrapped zero
// points, symmetric files whose zero points are not those of their version.
std::unique_ptr<ArtifactReader> OpenGptq(const Checkpoint& checkpoint);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_GPTQ_H_
