// Norms, rotary embedding, activations and scores of the cpu backend. Attention is in
// cpu_attention.cc.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/batch_plan.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/forward_kernels.h"

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

bool IsF32OrBF16(DType dtype) { return dtype == DType::kF32 || dtype == DType::kBF16; }

uint16_t* BitsOf(Matrix m, int64_t row) { return &m.Row<BF16>(row)->bits; }

// [1, cols] F32, or empty where that is allowed.
void CheckVector(ConstMatrix v, int64_t cols, std::string_view message) {
  Check(v.dtype == DType::kF32 && v.rows == 1 && v.cols == cols, message);
}

double LogSumExp(const LogitStats& stats) {
  return static_cast<double>(stats.max) + std::log(stats.sum);
}

TokenScore ScoreOf(const LogitStats& stats, float target) {
  // In this order the large parts of logit and maximum cancel before the logarithm is taken off.
  const double above = static_cast<double>(target) - static_cast<double>(stats.max);
  return {above - std::log(stats.sum), stats.argmax};
}

void CheckTargets(std::span<const int32_t> targets, int64_t rows, int64_t vocab) {
  Check(static_cast<int64_t>(targets.size()) == rows, "scores: one target per row");
  for (const int32_t target : targets) {
    Check(target >= 0 && target < vocab, "scores: a target outside the vocabulary");
  }
}

}  // namespace

void CpuBackend::Norm(Exec& exec, ConstMatrix x, const NormParams& params, Matrix out) {
  Check(x.dtype == DType::kF32 && IsF32OrBF16(out.dtype), "Norm: x is F32, out F32 or BF16");
  Check(out.rows == x.rows && out.cols == x.cols, "Norm: shapes differ");
  const bool layer = params.kind == NormKind::kLayer;
  const bool has_bias = params.bias.size() > 0;
  CheckVector(params.gain, x.cols, "Norm: gain is [1, features] F32");
  if (has_bias) CheckVector(params.bias, x.cols, "Norm: bias is [1, features] F32");
  Check(layer || !has_bias, "Norm: RMS norm has no bias");

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
  const auto& batch = static_cast<const CpuBatchPlan&>(plan);
  Check(x.dtype == DType::kF32 && x.rows == batch.tokens(), "Rope: x is [tokens, ...] F32");
  Check(params.head_dim > 0 && x.cols % params.head_dim == 0, "Rope: x has no whole heads");
  Check(params.rotary_dim % 2 == 0 && params.rotary_dim <= params.head_dim &&
            static_cast<int64_t>(params.inv_freq.size()) == params.rotary_dim / 2,
        "Rope: rotary_dim is even, at most head_dim, with half as many frequencies");
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
  const bool gated = up.data != nullptr;
  Check(gate.dtype == DType::kF32 && (!gated || up.dtype == DType::kF32) && IsF32OrBF16(out.dtype),
        "GatedActivation: gate and up are F32, out F32 or BF16");
  Check(out.rows == gate.rows && out.cols == gate.cols &&
            (!gated || (up.rows == gate.rows && up.cols == gate.cols)),
        "GatedActivation: shapes differ");
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
  Check(logits.dtype == DType::kF32, "ScoreLogits: logits are F32");
  CheckTargets(targets, logits.rows, logits.cols);
  Check(scores.size() == targets.size(), "ScoreLogits: one score per row");
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
  Check(reference.dtype == DType::kF32 && test.dtype == DType::kF32,
        "CompareLogits: logits are F32");
  Check(reference.rows == test.rows && reference.cols == test.cols, "CompareLogits: shapes differ");
  CheckTargets(targets, reference.rows, reference.cols);
  Check(scores.size() == targets.size(), "CompareLogits: one score per row");
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
  Check(logits.dtype == DType::kF32, "SoftCap: logits are F32");
  Check(cap > 0, "SoftCap: the cap is positive");
  const ForwardKernels& kernels = SelectForwardKernels(isa_);
  ForRows(exec, logits.rows, logits.cols,
          [&](int64_t r) { kernels.soft_cap(cap, logits.cols, logits.Row<float>(r)); });
}

}  // namespace quantmill::cpu
