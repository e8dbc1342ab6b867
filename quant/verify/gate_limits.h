// What `quantmill gate` lets pass (docs/gate.md).
#ifndef QUANTMILL_QUANT_VERIFY_GATE_LIMITS_H_
#define QUANTMILL_QUANT_VERIFY_GATE_LIMITS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "quant/report/results.h"

namespace quantmill {

// A limits file. What it says of the evaluation belongs to the limits: a number means nothing
// without its protocol.
struct GateLimits {
  struct Limit {
    std::string key;
    double value = 0;  // shares as shares of one, sizes in bytes
  };
  std::string path;           // for reports
  std::vector<Limit> limits;  // in the file's order; max_fallbacks is not among them
  std::optional<int64_t> max_fallbacks;
  bool strict = false;
  // The evaluation. Empty or 0: what `eval` takes.
  std::string protocol;
  int64_t window = 0;
  int64_t max_windows = 0;
  std::string compute;
  std::string tokens_sha256;  // of the text's token ids; empty: any text
  // The speeds: sequences at once, and their lengths; 0: bench's defaults.
  int64_t batch = 1;
  int64_t prompt_tokens = 0;
  int64_t decode_tokens = 0;

  // Whether a limit asks for more than the file itself tells.
  bool need_evaluation() const;
  bool need_speeds() const;
};

// Reads a file, or its text (`path` names it in errors). Throws Error(kBadInput) for a file that
// cannot be read, and Error(kUsage) naming file and line for an unknown key (with the nearest), a
// value out of its range, or a file without any limit.
GateLimits LoadGateLimits(const std::string& path);
GateLimits ParseGateLimits(const std::string& yaml, const std::string& path);

// What the limits are compared with.
struct GateFacts {
  // Of one model, with a reference, which is the last one of `benched`; null: was not run.
  const EvalReport* evaluated = nullptr;
  const BenchReport* benched = nullptr;
  std::string why_not_run;
  uint64_t weight_bytes = 0;
  std::optional<int64_t> fallbacks;  // of quantmill.json; nothing: there is none
};

// One check for each limit, in order; then max_fallbacks (0 where the file does not say). A limit
// is kept by a measured value that is at the limit or better; a strict one if the worse end of the
// 95 % interval is. What was not measured, NaN included, does not keep a limit; but fallbacks that
// nothing records keep a limit that the file does not name (the note says so).
std::vector<GateCheck> CheckLimits(const GateLimits& limits, const GateFacts& facts);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_VERIFY_GATE_LIMITS_H_
