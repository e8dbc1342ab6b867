// Models timed side by side: what bench and gate share.
#ifndef QUANTMILL_TOOLS_BENCHMARKING_H_
#define QUANTMILL_TOOLS_BENCHMARKING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "quant/report/results.h"
#include "tools/console.h"
#include "tools/session.h"

namespace quantmill {

struct BenchmarkFlags {
  std::vector<std::string> models;
  std::string reference;  // empty: none
  std::vector<int64_t> batches = {1, 4, 8};
  int64_t prompt_tokens = 512;
  int64_t decode_tokens = 64;
  int64_t runs = 3;
  std::string compute = "auto";
  std::string kv_cache = "auto";
};

// Opens and loads the models, and runs them in turns. Shows progress on `console`. The report's
// models are those named, then the reference, unless it is one of them. Throws Error(kUsage) for
// sequences longer than a model's positions.
BenchReport BenchmarkModels(const BenchmarkFlags& flags, Session& session, const Console& console);

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_BENCHMARKING_H_
