// What the solvers need to know of what some linears read, summed over the calibration tokens.
#ifndef QUANTMILL_QUANT_CALIB_SITE_STATISTICS_H_
#define QUANTMILL_QUANT_CALIB_SITE_STATISTICS_H_

#include <functional>
#include <optional>
#include <vector>

#include "quant/calib/calibration_stream.h"

namespace quantmill {

// Sums over the tokens, in the backend's memory.
struct SiteStatistics {
  Tensor gram;  // [in, in] F32: X_q^T X_q over all tokens, upper triangle only
  // With a full-precision stream beside: X_q^T (X_fp - X_q), [in, in] F32, over the windows that
  // are fitted, and over every eighth window, which is held out. Empty otherwise.
  Tensor cross_fitted;
  Tensor cross_held;
  double fitted_share = 0;  // of the tokens
  double held_share = 0;    // 0 with a single window: there is nothing to hold out
  // Least and largest value of each input, [2, in] F32 (Backend::AddRange), where asked for.
  Tensor range;
};

// Which windows are held out, of `windows`: every eighth, or the last of fewer; none of one.
bool IsHeldOut(int64_t window, int64_t windows);

// Sums are taken window by window, so that they do not depend on how many windows run at a time,
// which the memory budget decides. `full` may be null; it is advanced as
// CalibrationStream::VisitBeside says. with_range: for static scales of inputs. timed(work) is
// called for the sums of each chunk and must call work.
SiteStatistics GatherStatistics(Backend& backend, Exec& exec, CalibrationStream& stream,
                                CalibrationStream* full, const BlockSpec& block,
                                const BlockWeights& weights, const BlockWeights* full_weights,
                                const SharedInput& input, bool with_range,
                                const std::function<void(const std::function<void()>&)>& timed);

// The diagonal of a square matrix F32 in the backend's memory, in host memory. A Gram matrix's:
// each input's sum of squares.
std::vector<float> DiagonalOf(Backend& backend, Exec& exec, ConstMatrix square);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_CALIB_SITE_STATISTICS_H_
