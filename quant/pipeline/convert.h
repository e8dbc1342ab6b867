// The same quantized values in another format's file, or as a dense checkpoint.
#ifndef QUANTMILL_QUANT_PIPELINE_CONVERT_H_
#define QUANTMILL_QUANT_PIPELINE_CONVERT_H_

#include <functional>
#include <string>

#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/report/results.h"

namespace quantmill {

// (phase, done, total, layer); may throw to stop.
using ConvertProgress = std::function<void(const std::string& phase, int64_t done, int64_t total,
                                           const std::string& layer)>;

// Writes `source`, an artifact, in another format: codes, scales and zero points are repacked,
// never rounded again. Ends by re-opening the output and comparing every decoded value with the
// source's; where both formats have codes in the same words (RowBand), equal words, scales and zero
// points are equal values. Symmetric groups go into formats that have zero points for every group,
// and come back as they were. `output` is atomic. Throws
//   Error(kUsage)         a dense source; a module that the format cannot hold, with the reason; a
//                         scale that the format's type does not hold exactly;
//   Error(kVerification)  the output decodes to other values (a bug; nothing is kept).
// What quantize recorded goes along: the output is verified like the original.
ConvertReport ConvertArtifact(const ModelSource& source, const std::string& format,
                              const std::string& output, bool force, ThreadPool& pool,
                              const ConvertProgress& progress);

// Writes a dense checkpoint of `source`'s values, code * scale in float rounded to `dtype` (F32,
// F16 or BF16). Error(kBadInput) naming a layer whose values overflow it.
ConvertReport DequantizeArtifact(const ModelSource& source, DType dtype, const std::string& output,
                                 bool force, ThreadPool& pool, const ConvertProgress& progress);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_CONVERT_H_
