// A GGUF file as the Hugging Face folder that it was made from, as far as it can be told.
#ifndef QUANTMILL_QUANT_PIPELINE_CONVERT_FOLDER_H_
#define QUANTMILL_QUANT_PIPELINE_CONVERT_FOLDER_H_

#include <string>

#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/convert.h"
#include "quant/report/results.h"

namespace quantmill {

// Writes config.json, the tokenizer and generation files, and every tensor in the type that
// `source` was opened with (GgufReading::dense). REQUIRES: source.checkpoint().is_image(), opened
// without codes. Decodes 16 MB at a time with all threads; memory does not grow with the model.
// Ends by re-opening the output and comparing every byte with what the source decodes to. `output`
// is atomic; the same source gives the same bytes for any number of threads. Throws
//   Error(kBadInput)      a tokenizer that is not read, values that are not finite or that the type
//                         does not reach;
//   Error(kVerification)  the output holds other values (a bug; nothing is kept).
ConvertReport WriteDenseFolder(const ModelSource& source, const std::string& output, bool force,
                               ThreadPool& pool, const ConvertProgress& progress);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_CONVERT_FOLDER_H_
