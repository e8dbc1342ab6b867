#include "quant/calib/site_statistics.h"

#include <algorithm>

#include "quant/calib/block_probe.h"

namespace quantmill {
namespace {

constexpr int64_t kHeldOutEvery = 8;

Tensor ZeroSquare(Backend& backend, Exec& exec, int64_t n) {
  Tensor square = backend.Empty(DType::kF32, n, n);
  backend.Zero(exec, square);
  return square;
}

double HeldShare(int64_t windows) {
  int64_t held = 0;
  for (int64_t i = 0; i < windows; ++i) held += IsHeldOut(i, windows) ? 1 : 0;
  return static_cast<double>(held) / static_cast<double>(windows);
}

}  // namespace

bool IsHeldOut(int64_t window, int64_t windows) {
  if (windows < 2) return false;
  const int64_t every = std::min(kHeldOutEvery, windows);
  return window % every == every - 1;
}

SiteStatistics GatherStatistics(Backend& backend, Exec& exec, CalibrationStream& stream,
                                CalibrationStream* full, const BlockSpec& block,
                                const BlockWeights& weights, const BlockWeights* full_weights,
                                const SharedInput& input, bool with_range,
                                const std::function<void(const std::function<void()>&)>& timed) {
  const int64_t in = block.LinearsAt(input).front()->in;
  const int64_t window = stream.window();
  SiteStatistics statistics;
  statistics.gram = ZeroSquare(backend, exec, in);
  if (with_range) statistics.range = EmptyRange(backend, exec, in);
  const auto add_gram = [&](ConstMatrix x) {
    if (with_range) backend.AddRange(exec, x, statistics.range);
    for (int64_t row = 0; row < x.rows; row += window) {
      backend.AddGram(exec, x.Rows(row, window), statistics.gram);
    }
  };
  if (full == nullptr) {
    stream.VisitInputs(block, weights, input, [&](ConstMatrix x) { timed([&] { add_gram(x); }); });
    return statistics;
  }
  statistics.cross_fitted = ZeroSquare(backend, exec, in);
  statistics.cross_held = ZeroSquare(backend, exec, in);
  statistics.held_share = HeldShare(stream.windows());
  statistics.fitted_share = 1 - statistics.held_share;
  const auto add_cross = [&](int64_t first_row, ConstMatrix x, ConstMatrix full_x) {
    for (int64_t row = 0; row < x.rows; row += window) {
      const bool held = IsHeldOut((first_row + row) / window, stream.windows());
      backend.AddCross(exec, x.Rows(row, window), full_x.Rows(row, window),
                       held ? statistics.cross_held : statistics.cross_fitted);
    }
  };
  stream.VisitBeside(*full, block, weights, *full_weights, input,
                     [&](int64_t first_row, ConstMatrix x, ConstMatrix full_x) {
                       timed([&] {
                         add_gram(x);
                         add_cross(first_row, x, full_x);
                       });
                     });
  return statistics;
}

std::vector<float> DiagonalOf(Backend& backend, Exec& exec, ConstMatrix square) {
  std::vector<float> diagonal(static_cast<size_t>(square.rows));
  const ConstMatrix view{square.data, square.dtype, square.rows, 1, square.stride + 1};
  backend.Download(exec, view, MutableViewOf(diagonal.data(), square.rows, 1));
  return diagonal;
}

}  // namespace quantmill
