// Norms, rotary embedding, activations and scores of the cpu backend. Attention is in
// cpu_attention.cc.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/batch_plan.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/forward_kernels.h"
#include "kernels/op_checks.h"

namespace quantmill::cpu {

QUANTMILL_DEFINE_ISA_TABLE(ForwardKernels, kForwardKernels)

namespace {

static_assert(static_cast<int>(Activation::kSilu) == 0 &&
              static_cast<int>(Activation::kGeluTanh) == 1 &&
              static_cast<int>(Activation::kGelu) == 2 &&
              static_cast<int>(Activation::kRelu) == kActivations - 1);

// Calls row(r) for every row, in tasks of a fixed number of elements: large enough to pay for
// waking a thread, small enough for the last task not to be waited for.
template <typename Row>
void ForRows(Exec& exec, int64_t rows, int64_t cols, Row row) {
  if (rows == 0 || cols == 0) return;
  constexpr int64_t kTaskElements = int64_t{1} << 15;
  const int64_t step = std::max<int64_t>(1, kTaskElements / cols);
  PoolOf(exec).ParallelFor((rows + step - 1) / step, [&](int64_t task, int) {
    const int64_t end = std::min(rows, (task + 1) * step);
    for (int64_t r = task * step; r < end; ++r) row(r);
  });
}

uint16_t* BitsOf(Matrix m, int64_t row) { return &m.Row<BF16>(row)->bits; }

double LogSumExp(const LogitStats& stats) {
  return static_cast<double>(stats.max) + std::log(stats.sum);
}

TokenScore ScoreOf(const LogitStats& stats, float target) {
  // In this order the large parts of logit and maximum cancel before the logarithm is taken off.
  const double above = static_cast<double>(target) - static_cast<double>(stats.max);
  return {above - std::log(stats.sum), stats.argmax};
}

}  // namespace

void CpuBackend::Norm(Exec& exec, ConstMatrix x, const NormParams& params, Matrix out) {
  CheckNorm(x, params, out);
  const bool layer = params.kind == NormKind::kLayer;
  const bool has_bias = params.bias.size() > 0;

  const ForwardKernels& kernels = SelectForwardKernels(isa_);
  NormRow common{.features = x.cols,
                 .center = layer,
                 .eps = params.eps,
                 .gain_offset = params.gain_offset,
                 .gain = x.cols > 0 ? params.gain.Row<float>(0) : nullptr,
                 .bias = has_bias ? params.bias.Row<float>(0) : nullptr};
  ForRows(exec, x.rows, x.cols, [&](int64_t r) {
    NormRow row = common;
    row.x = x.Row<float>(r);
    if (out.dtype == DType::kF32) {
      kernels.norm_f32(row, out.Row<float>(r));
    } else {
      kernels.norm_bf16(row, BitsOf(out, r));
    }
  });
}

void CpuBackend::Rope(Exec& exec, const BatchPlan& plan, const RopeParams& params, Matrix x) {
  CheckRope(plan, params, x);
  const auto& batch = static_cast<const CpuBatchPlan&>(plan);
  if (x.size() == 0 || params.rotary_dim == 0) return;

  const ForwardKernels& kernels = SelectForwardKernels(isa_);
  const CpuBatchPlan::RopeTable& table = batch.Rope(params, PoolOf(exec));
  ForRows(exec, x.rows, x.cols, [&](int64_t r) {
    kernels.rope(batch.RopeEntry(table, r), params.rotary_dim / 2, x.cols / params.head_dim,
                 params.head_dim, x.Row<float>(r));
  });
}

void CpuBackend::GatedActivation(Exec& exec, Activation activation, ConstMatrix gate,
                                 ConstMatrix up, Matrix out) {
  CheckGatedActivation(gate, up, out);
  const bool gated = up.data != nullptr;
  const ForwardKernels& kernels = SelectForwardKernels(isa_);
  const auto index = static_cast<size_t>(activation);
  ForRows(exec, gate.rows, gate.cols, [&](int64_t r) {
    const float* up_row = gated ? up.Row<float>(r) : nullptr;
    if (out.dtype == DType::kF32) {
      kernels.activation_f32[index](gate.Row<float>(r), up_row, gate.cols, out.Row<float>(r));
    } else {
      kernels.activation_bf16[index](gate.Row<float>(r), up_row, gate.cols, BitsOf(out, r));
    }
  });
}

void CpuBackend::ScoreLogits(Exec& exec, ConstMatrix logits, std::span<const int32_t> targets,
                             std::span<TokenScore> scores) {
  CheckScoreLogits(logits, targets, scores);
  const ForwardKernels& kernels = SelectForwardKernels(isa_);
  ForRows(exec, logits.rows, logits.cols, [&](int64_t r) {
    const float* row = logits.Row<float>(r);
    const auto i = static_cast<size_t>(r);
    scores[i] = ScoreOf(kernels.logit_stats(row, logits.cols), row[targets[i]]);
  });
}

void CpuBackend::CompareLogits(Exec& exec, ConstMatrix reference, ConstMatrix test,
                               std::span<const int32_t> targets,
                               std::span<TokenComparison> scores) {
  CheckCompareLogits(reference, test, targets, scores);
  const ForwardKernels& kernels = SelectForwardKernels(isa_);
  const int64_t vocab = reference.cols;
  ForRows(exec, reference.rows, vocab, [&](int64_t r) {
    const float* p = reference.Row<float>(r);
    const float* q = test.Row<float>(r);
    const auto i = static_cast<size_t>(r);
    const LogitStats p_stats = kernels.logit_stats(p, vocab);
    const LogitStats q_stats = kernels.logit_stats(q, vocab);
    const double shift = LogSumExp(q_stats) - LogSumExp(p_stats);
    scores[i].reference = ScoreOf(p_stats, p[targets[i]]);
    scores[i].test = ScoreOf(q_stats, q[targets[i]]);
    scores[i].kl = kernels.divergence(p, p_stats, q, q_stats, shift, vocab);
  });
}

void CpuBackend::SoftCap(Exec& exec, float cap, Matrix logits) {
  CheckSoftCap(cap, logits);
  const ForwardKernels& kernels = SelectForwardKernels(isa_);
  ForRows(exec, logits.rows, logits.cols,
          [&](int64_t r) { kernels.soft_cap(cap, logits.cols, logits.Row<float>(r)); });
}

}  // namespace quantmill::cpu
