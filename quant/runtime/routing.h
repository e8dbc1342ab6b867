// Which experts of a mixture each token goes to.
#ifndef QUANTMILL_QUANT_RUNTIME_ROUTING_H_
#define QUANTMILL_QUANT_RUNTIME_ROUTING_H_

#include <cstdint>
#include <vector>

#include "kernels/core/matrix.h"

namespace quantmill {

// The tokens of one expert: rows ascending, each with the factor of the expert's output.
struct ExpertTokens {
  std::vector<int32_t> rows;
  std::vector<float> factors;
};

// Softmax over the experts, of which each token keeps the top_k most probable (the lowest number on
// ties), divided by their sum where `renormalize`; as transformers does it: probabilities are F32,
// chosen among after rounding. logits: [tokens, experts] F32, host memory. top_k <= experts.
// Returns one entry an expert. A token with a NaN goes to top_k experts with NaN factors. A row's
// result does not depend on the other rows.
std::vector<ExpertTokens> RouteTokens(ConstMatrix logits, int64_t top_k, bool renormalize);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_ROUTING_H_
