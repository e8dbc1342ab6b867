// A model as one GGUF file: an artifact without loss, a dense checkpoint quantized block by block.
#ifndef QUANTMILL_QUANT_PIPELINE_CONVERT_GGUF_H_
#define QUANTMILL_QUANT_PIPELINE_CONVERT_GGUF_H_

#include <string>

#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/convert.h"
#include "quant/report/results.h"

namespace quantmill {

struct GgufOptions {
  std::string type;            // of GgufTypeNames (gguf_types.h); "": f16. "" for an artifact
  std::string embedding_type;  // of GgufEmbeddingTypeNames; "": as gguf_types.h says
  std::string pre;             // tokenizer.ggml.pre; "": found from tokenizer.json
  std::string imatrix;         // a file of llama.cpp with the importance of inputs; "": none
};

// Writes `source` as the file `output`. The codes of an artifact are repacked, never rounded again;
// a dense checkpoint's rows are encoded by EncodeRow. Ends by re-opening the file and decoding it:
// what was repacked, or is stored as it was, has exactly the source's values, in the order that
// llama.cpp wants. `output` is atomic; the same source and options give the same bytes for any
// number of threads. Throws
//   Error(kUsage)         options that do not suit the source; a module, cache or tensor that the
//                         file has no place for, with the reason;
//   Error(kBadInput)      a family or tokenizer that llama.cpp would read otherwise; an importance
//                         matrix of another model; values that a type does not reach;
//   Error(kVerification)  the output decodes to other values (a bug; nothing is kept).
ConvertReport WriteGguf(const ModelSource& source, const GgufOptions& options,
                        const std::string& output, bool force, ThreadPool& pool,
                        const ConvertProgress& progress);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_CONVERT_GGUF_H_
