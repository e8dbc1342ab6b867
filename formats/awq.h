// AWQ files. Written is the GEMM layout, as AutoAWQ, vLLM, SGLang and transformers read it;
// AutoAWQ's GEMV layouts are read too (awq/gemv.cc). GEMM, per module (N outputs, K inputs, G
// groups), 4 bits:
//
//   qweight  I32  [K, N/8]   bits 4i of word c: code + 8 of output 8c + (0 2 4 6 1 3 5 7)[i]
//   qzeros   I32  [G, N/8]   likewise: zero point + 8, not less one
//   scales   F16  [G, N]
//   value = (code - zero_point) * scale
//
// N is a multiple of 8, and the group size divides K. All modules have one scheme; those left dense
// are listed in `modules_to_not_convert`, which readers match as parts of names (formats.md
// section 3).
#ifndef QUANTMILL_FORMATS_AWQ_H_
#define QUANTMILL_FORMATS_AWQ_H_

#include <memory>

#include "formats/artifact.h"

namespace quantmill {

// "awq". Asymmetric schemes alone: the layout has zero points for every group.
const ArtifactWriterFormat& AwqFormat();

// `checkpoint` has quantization_config.quant_method "awq" and must outlive the reader. Versions
// gemm, gemv and gemv_fast. Refused by name: others, other bits than 4, files without zero points.
std::unique_ptr<ArtifactReader> OpenAwq(const Checkpoint& checkpoint);

}  // namespace quantmill

#endif  // QUANTMILL_FORMATS_AWQ_H_
