// Models run on a text and compared with a reference: what eval and gate share.
#ifndef QUANTMILL_TOOLS_EVALUATION_H_
#define QUANTMILL_TOOLS_EVALUATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "quant/report/results.h"
#include "tools/console.h"
#include "tools/session.h"

namespace quantmill {

struct EvaluationFlags {
  std::vector<std::string> models;
  std::string reference;  // empty: none
  std::string text;       // of text and tokens_file, one is given
  std::string tokens_file;
  std::string protocol = "windows";
  int64_t window = 0;       // 0: the protocol's
  int64_t max_windows = 0;  // 0: all
  std::string compute = "f32";
  std::string reference_compute;  // empty: as compute
  std::string kv_cache = "auto";
  std::string tokens_sha256;  // what the token ids must have; empty: any
};

struct Evaluation {
  EvalReport report;                          // `seconds` and `peak_rss_bytes` included
  std::vector<std::vector<float>> log_probs;  // of the target, of each model's scored tokens
};

// Opens the models, encodes the text once, and scores. Shows progress on `console`. Throws
// Error(kUsage) for a window longer than a model's positions; Error(kBadInput) for models that read
// the text differently, a text shorter than a window, or other tokens than tokens_sha256.
Evaluation EvaluateModels(const EvaluationFlags& flags, Session& session, const Console& console);

}  // namespace quantmill

#endif  // QUANTMILL_TOOLS_EVALUATION_H_
