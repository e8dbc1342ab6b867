// FP8 files of `quant_method: fp8`, as vLLM, SGLang and transformers read them (DeepSeek's are
// such). Per module (N outputs, K inputs), E4M3 codes and F32 scales that multiply:
//
//   weight            F8_E4M3  [N, K]
//   weight_scale      F32      [1]   one scale a tensor; or
//   weight_scale_inv  F32      [ceil(N / n), ceil(K / k)]   one a block of n x k
//   (weight_block_size);
//                              a multiplier too, despite its name
//   input_scale       F32      [1]   where `activation_scheme` is static
//
// Inputs are rounded to E4M3, with one scale a token (per tensor) or one for each k inputs of a
// token (blocks), or the stored one. Layers left dense are listed in `ignored_layers` and
// `modules_to_not_convert`: readers look at one or the other (formats.md section 5).
#ifndef QUANTMILL_FORMATS_FP8_H_
#define QUANTMILL_FORMATS_FP8_H_

#include <memory>

#include "formats/artifact.h"

namespace quantmill {

// "fp8". All modules have one scheme.
const ArtifactWriterFormat& Fp8Format();

// `checkpoint` has quantization_config.quant_method "fp8" and must outlive the reader. Modules are
// those whose `.weight` is F8_E4M3. Refused by name: other formats than e4m3, static inputs of
// blocks.
std::unique_ptr<ArtifactReader> OpenFp8(const Checkpoint& checkpoint);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_FP8_H_
