// The compressed-tensors format, read by vLLM, SGLang and transformers, as its library 0.20 reads
// and writes it. Per module (N outputs, K inputs, b bits, G groups):
//
// pack-quantized: integers of 2 to 8 bits, inputs as they are (or rounded per token, when reading)
//   weight_packed        I32     [N, ceil(K b / 32)]   code + 2^(b-1), lowest bits first, along K
//   weight_scale         float   [N, G]                F32, F16 or BF16
//   weight_zero_point    I32     [ceil(N b / 32), G]   asymmetric only; as codes, along N
//   weight_shape         I64     [2]                   N, K
// int-quantized (integers, rounded inputs), float-quantized (FP8, rounded inputs), naive-quantized
// (FP8, inputs as they are; either, when reading), mxfp8-quantized (read, never written)
//   weight               I8 | F8_E4M3  [N, K]          I8 also of codes of fewer bits, when reading
//   weight_scale         float   [1] per tensor, [N, 1] per channel, [ceil(N/R), ceil(K/C)] blocks,
//                                [N, G] of integers, when reading
//                        U8      [N, K/32]             mxfp8: 2^(byte - 127)
//   weight_zero_point    I8      as weight_scale       asymmetric integers; read, never written
//   input_scale          F32     [1]                   static inputs only
//   input_zero_point     I8      [1]                   static asymmetric INT8 inputs only
// nvfp4-pack-quantized, mxfp4-pack-quantized: E2M1, inputs as they are, or rounded likewise (or to
// FP8, when reading)
//   weight_packed        U8      [N, K/2]              even k in the low four bits
//   weight_scale         F8_E4M3 [N, K/16]             nvfp4
//                        U8      [N, K/32]             mxfp4: 2^(byte - 127)
//   weight_global_scale  F32     [1]                   nvfp4: divides the scales
//   input_global_scale   F32     [1]                   nvfp4, rounded inputs: divides their scales
// A cache of keys and values in FP8 (kv_cache_scheme), per attention module of H key-value heads:
//   k_scale, v_scale     F32     [1] | [H, 1, 1]
//
// Packed integers are one dense bitstream per row (32 codes fill b words), as the library writes
// them since its change #715; older libraries padded words for 3, 5, 6 and 7 bits. Pad bits are
// zero. Modules of different layouts make the file `mixed-precision`, with a format per group.
#ifndef QUANTMILL_FORMATS_COMPRESSED_TENSORS_H_
#define QUANTMILL_FORMATS_COMPRESSED_TENSORS_H_

#include <memory>

#include "formats/artifact.h"

namespace quantmill {

// CheckSupported refuses, with the reason, what the library or vLLM could not load: a group or
// block that does not divide `in`, asymmetric integers, or such of other sizes than 8 bits, beside
// rounded inputs, and every mixture of code and input types that no layout has.
const ArtifactWriterFormat& CompressedTensorsFormat();

// `checkpoint` has quantization_config.quant_method "compressed-tensors" and must outlive the
// reader. Refused by name: other formats (mxfp6-pack-quantized, sparse ones), sparsity, transforms,
// output activations, inputs of other types than INT8, FP8 and FP4, caches other than FP8, keys
// inside a group that the library itself would refuse. Groups whose inputs act-order scattered
// (weight_g_idx) become groups of the runs of inputs that share one, down to single inputs: the
// same values.
std::unique_ptr<ArtifactReader> OpenCompressedTensors(const Checkpoint& checkpoint);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_COMPRESSED_TENSORS_H_
