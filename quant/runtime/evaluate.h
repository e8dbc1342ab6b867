// Perplexity and divergence by a stated protocol (algorithms.md section 9).
#ifndef QUANTMILL_QUANT_RUNTIME_EVALUATE_H_
#define QUANTMILL_QUANT_RUNTIME_EVALUATE_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "quant/runtime/decoder_model.h"
#include "quant/runtime/divergence.h"

namespace quantmill {

// kWindows: the token stream cut into windows without overlap, the tail dropped; every prediction
//   inside a window is scored (GPTQ's and AWQ's protocol). BOS stands where the tokenizer put it.
// kLlamaCpp: as llama.cpp's perplexity tool: the first token of each window is replaced by BOS if
//   the model uses one, and only the second half of the window is scored.
enum class Protocol : uint8_t { kWindows, kLlamaCpp };

struct EvaluationOptions {
  Protocol protocol = Protocol::kWindows;
  int64_t window = 2048;       // tokens
  int64_t max_windows = 0;     // 0: all
  std::optional<int32_t> bos;  // for kLlamaCpp
};

// One window: logits of row r predict ids[r + 1]; rows first_scored .. ids.size() - 2 are scored.
struct EvaluationWindow {
  std::vector<int32_t> ids;
  int64_t first_scored = 0;
};
// Throws Error(kBadInput) when the text is shorter than one window.
std::vector<EvaluationWindow> CutWindows(std::span<const int32_t> tokens,
                                         const EvaluationOptions& options);

struct ModelScores {
  PerplexityResult perplexity;
  std::optional<DivergenceResult> divergence;  // from the reference, where one was given
  std::vector<float> log_probs;                // of the target, for each scored token in order
  double tokens_per_second = 0;  // window tokens over this model's own time, scoring included
};

// Called after each window with the number done, the total, and the first model's perplexity so
// far.
using EvaluationProgress = std::function<void(int64_t done, int64_t total, double perplexity)>;

// Scores every model on every window. `reference` may be null; it may be one of `models` (then run
// once). Logits exist for a bounded number of rows at a time.
std::vector<ModelScores> Evaluate(Backend& backend, Exec& exec,
                                  std::span<DecoderModel* const> models, DecoderModel* reference,
                                  std::span<const EvaluationWindow> windows,
                                  const EvaluationProgress& progress);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_EVALUATE_H_
