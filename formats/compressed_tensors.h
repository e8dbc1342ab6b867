// The compressed-tensors format, "pack-quantized": integer weights of 2 to 8 bits, read by vLLM,
// SGLang and transformers. Per module (N outputs, K inputs, b bits, G groups):
//   weight_packed      I32   [N, ceil(K b / 32)]   code + 2^(b-1), lowest bits first, along K
//   weight_scale       float [N, G]                in the scheme's scale_dtype
//   weight_zero_point  I32   [ceil(N b / 32), G]   asymmetric only; packed as codes are, along N
//   weight_shape       I64   [2]                   N, K
// Codes are one dense bitstream per row (32 codes fill b words), as the library writes them since
// its change #715; older libraries padded words for 3, 5, 6 and 7 bits. Pad bits are zero.
#ifndef QUANTMILL_FORMATS_COMPRESSED_TENSORS_H_
#define QUANTMILL_FORMATS_COMPRESSED_TENSORS_H_

#include <memory>

#include "formats/artifact.h"

namespace quantmill {

// Refuses (CheckSupported) a group size that does not divide `in`, sizes of zero, bits
// outside 2..8.
const ArtifactWriterFormat& CompressedTensorsFormat();

// `checkpoint` has quantization_config.quant_method "compressed-tensors" and must outlive the
// reader. Refused by name: any other format than pack-quantized, activation or KV-cache
// quantization, act-order with weight_g_idx, float codes, strategies other than group and channel,
// keys inside a group that the library itself would refuse.
std::unique_ptr<ArtifactReader> OpenCompressedTensors(const Checkpoint& checkpoint);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_COMPRESSED_TENSORS_H_
