#include "quant/solve/asymmetric_target.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace quantmill {
namespace {

// Outputs multiplied at a time: the packed copy of the statistics stays small.
constexpr int64_t kPanel = 256;

// W C: element (o, i) is the sum over k of W[o, k] cross[i, k].
Tensor TimesCross(Backend& backend, Exec& exec, ConstMatrix weight, ConstMatrix cross) {
  Tensor product = backend.Empty(DType::kF32, weight.rows, cross.rows);
  const Tensor host = HostTensor(DType::kF32, std::min(kPanel, cross.rows), cross.cols);
  for (int64_t begin = 0; begin < cross.rows; begin += kPanel) {
    const int64_t count = std::min(kPanel, cross.rows - begin);
    const Matrix panel = host.view().Rows(0, count);
    backend.Download(exec, cross.Rows(begin, count), panel);
    const auto packed = backend.PackDense(exec, panel, Compute::kBF16x3);
    backend.MatMul(exec, weight, *packed, {}, MatMulMode::kStore,
                   product.view().Cols(begin, count));
    exec.stream.Synchronize();  // `packed` is read until then
  }
  return product;
}

// sum of a * b over all elements, in double.
double Dot(Backend& backend, Exec& exec, ConstMatrix a, ConstMatrix b) {
  const Tensor rows = HostTensor(DType::kF32, 2, a.cols);
  double sum = 0;
  for (int64_t r = 0; r < a.rows; ++r) {
    backend.Download(exec, a.Rows(r, 1), rows.view().Rows(0, 1));
    backend.Download(exec, b.Rows(r, 1), rows.view().Rows(1, 1));
    double lanes[4] = {};  // independent chains
    for (int64_t i = 0; i < a.cols; ++i) {
      lanes[i % 4] +=
          static_cast<double>(rows.Row<float>(0)[i]) * static_cast<double>(rows.Row<float>(1)[i]);
    }
    sum += (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
  }
  return sum;
}

// tr(S H S^T), H undamped. shift: [out, in] in the original order of columns.
double WeighShift(Backend& backend, Exec& exec, const ErrorWeights& weights, ConstMatrix shift) {
  const Tensor host = HostTensor(DType::kF32, 2, shift.cols);
  const Tensor device = backend.Empty(DType::kF32, shift.rows, shift.cols);
  for (int64_t r = 0; r < shift.rows; ++r) {
    backend.Download(exec, shift.Rows(r, 1), host.view().Rows(0, 1));
    for (size_t k = 0; k < weights.order.size(); ++k) {
      const auto column = static_cast<size_t>(weights.order[k]);
      host.Row<float>(1)[k] = weights.dead[column] ? 0.0f : host.Row<float>(0)[column];
    }
    backend.Upload(exec, host.view().Rows(1, 1), device.view().Rows(r, 1));
    exec.stream.Synchronize();
  }
  std::vector<float> forms(static_cast<size_t>(shift.rows));
  const Tensor sums = backend.Empty(DType::kF32, 1, shift.rows);
  backend.QuadraticForm(exec, device, weights.gram, weights.diagonal, sums);
  backend.Download(exec, sums, MutableViewOf(forms.data(), 1, shift.rows));
  double sum = 0;
  for (const float form : forms) sum += static_cast<double>(form);
  return sum;
}

// target = weight + factor * shift, row by row through host memory.
void AddScaled(Backend& backend, Exec& exec, ConstMatrix weight, ConstMatrix shift, double factor,
               Matrix target) {
  const Tensor rows = HostTensor(DType::kF32, 2, weight.cols);
  for (int64_t r = 0; r < weight.rows; ++r) {
    backend.Download(exec, weight.Rows(r, 1), rows.view().Rows(0, 1));
    backend.Download(exec, shift.Rows(r, 1), rows.view().Rows(1, 1));
    auto* w = rows.Row<float>(0);
    const auto* s = rows.Row<float>(1);
    for (int64_t i = 0; i < weight.cols; ++i) w[i] += static_cast<float>(factor) * s[i];
    backend.Upload(exec, rows.view().Rows(0, 1), target.Rows(r, 1));
    exec.stream.Synchronize();
  }
}

}  // namespace

AsymmetricTarget CorrectTarget(Backend& backend, Exec& exec, const GptqFactor& factor,
                               const CrossStatistics& cross, ConstMatrix weight) {
  Check(cross.fitted.rows() == weight.cols && cross.held.rows() == weight.cols,
        "CorrectTarget: statistics and weight differ in their inputs");
  AsymmetricTarget result;
  result.target = backend.Empty(DType::kF32, weight.rows, weight.cols);
  backend.Convert(exec, weight, result.target);
  if (!factor.ok() || cross.fitted_share <= 0 || cross.held_share <= 0) return result;

  Tensor shift = TimesCross(backend, exec, weight, cross.fitted);
  const Tensor held = TimesCross(backend, exec, weight, cross.held);
  const Tensor whole = backend.Empty(DType::kF32, weight.rows, weight.cols);
  AddScaled(backend, exec, shift, held, 1, whole);
  backend.SolveGram(exec, factor.gram(), factor.order(), shift);
  // |W (X_fp - X_q) - t S X_q|^2 over the held-out tokens is least at t = <W C_held, S> / S H_held
  // S^T; S is `shift` over the fitted tokens' share.
  const double along = Dot(backend, exec, held, shift) / cross.held_share / cross.fitted_share;
  const double square = WeighShift(backend, exec, factor.error_weights(), shift) /
                        (cross.fitted_share * cross.fitted_share);
  if (!(square > 0) || !std::isfinite(square) || !std::isfinite(along)) return result;
  result.strength = std::clamp(along / square, 0.0, 1.0);
  // The strength is known: the shift itself may use all tokens.
  backend.SolveGram(exec, factor.gram(), factor.order(), whole);
  AddScaled(backend, exec, weight, whole, result.strength, result.target);
  return result;
}

}  // namespace quantmill
