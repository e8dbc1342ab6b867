// The asymmetric target: what a layer should be, given that its input is already that of quantized
// layers (GPTAQ, algorithms.md section 1, in closed form). Minimizing |W X_fp - Q X_q|^2 over Q is
// GPTQ on
//   W' = W (I + C H^-1),   C = (X_fp - X_q) X_q^T,   H = X_q X_q^T + damp I,
// so the layer reproduces the full-precision output from its quantized input.
#ifndef QUANTMILL_QUANT_SOLVE_ASYMMETRIC_TARGET_H_
#define QUANTMILL_QUANT_SOLVE_ASYMMETRIC_TARGET_H_

#include "quant/solve/gptq.h"

namespace quantmill {

// Sums of Backend::AddCross(x_q, x_fp): C^T over the tokens that are fitted, and over others that
// are held out to choose the strength.
struct CrossStatistics {
  Tensor fitted;  // [in, in] F32, backend memory
  Tensor held;    // same
  // Tokens of each, as shares of those of the Gram matrix; both are in it.
  double fitted_share = 0;
  double held_share = 0;
};

struct AsymmetricTarget {
  // [out, in] F32, backend memory: W + strength (W' - W), W' from all tokens.
  Tensor target;
  // In [0, 1]: that which leaves least of the output's difference on the held-out tokens, where the
  // shift was not fitted; 0 leaves the weight as it is.
  double strength = 0;
};

// weight: [out, in] F32, backend memory. The held-out tokens' own Gram matrix is taken to be their
// share of H. A factor that is not ok gives strength 0.
AsymmetricTarget CorrectTarget(Backend& backend, Exec& exec, const GptqFactor& factor,
                               const CrossStatistics& cross, ConstMatrix weight);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_SOLVE_ASYMMETRIC_TARGET_H_
