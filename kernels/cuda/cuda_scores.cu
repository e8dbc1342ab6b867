// ScoreLogits and CompareLogits of the cuda backend. A block reads a row of logits twice (and of
// both rows of a comparison once more): bound by memory bandwidth, or by the caches where rows fit
// them. Exponentials are F32, their sums F64.
#include <cmath>
#include <vector>

#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/staging.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

constexpr int kThreads = 512;  // of every block: a row's sums do not depend on the call
constexpr int32_t kNoToken = INT32_MAX;

struct LogitStats {
  float max;
  int32_t argmax;
  double sum;  // of e^(x - max)
};

struct Lowest {
  __device__ int32_t operator()(int32_t a, int32_t b) const { return b < a ? b : a; }
};

// Scratch of the reductions of a block.
struct Scratch {
  SharedArray<float> floats;
  SharedArray<int32_t> ints;
  SharedArray<double> doubles;

  __device__ explicit Scratch(SharedMemory& shared)
      : floats(shared.Take<float>(kWarp)),
        ints(shared.Take<int32_t>(kWarp)),
        doubles(shared.Take<double>(kWarp)) {}
};
constexpr size_t kScratchBytes =
    SharedBytes<float>(kWarp) + SharedBytes<int32_t>(kWarp) + SharedBytes<double>(kWarp);

// By all threads of the block. A NaN is never the maximum; it makes the sum NaN.
__device__ LogitStats StatsOf(const float* x, int64_t n, const Scratch& scratch) {
  float best = -INFINITY;
  int32_t at = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    if (x[i] > best) {
      best = x[i];
      at = static_cast<int32_t>(i);
    }
  }
  LogitStats stats;
  stats.max = BlockReduce(best, -INFINITY, Max(), scratch.floats);
  const int32_t candidate = best == stats.max ? at : kNoToken;
  stats.argmax = BlockReduce(candidate, kNoToken, Lowest(), scratch.ints);
  double sum = 0;
  for (int64_t i = threadIdx.x; i < n; i += kThreads) {
    sum += static_cast<double>(expf(x[i] - stats.max));
  }
  stats.sum = BlockReduce(sum, 0.0, Sum(), scratch.doubles);
  return stats;
}

// In this order the large parts of logit and maximum cancel before the logarithm is taken off.
__device__ double LogProb(const LogitStats& stats, float target) {
  return (static_cast<double>(target) - static_cast<double>(stats.max)) - log(stats.sum);
}

__device__ double LogSumExp(const LogitStats& stats) {
  return static_cast<double>(stats.max) + log(stats.sum);
}

// A block per row. scores: [rows, 2]: log-probability, top1.
__global__ void ScoreKernel(View<const float> logits, const int32_t* targets, View<double> scores) {
  SharedMemory shared;
  const Scratch scratch(shared);
  const float* row = logits.Row(blockIdx.x);
  const LogitStats stats = StatsOf(row, logits.cols, scratch);
  if (threadIdx.x != 0) return;
  double* to = scores.Row(blockIdx.x);
  to[0] = LogProb(stats, row[targets[blockIdx.x]]);
  to[1] = stats.argmax;
}

// A term of the divergence sum p (e^u - 1 - u), u = log q - log p, of p the reference and q the
// test: since p and q sum to 1, that is KL. Every term is >= 0, so a small divergence does not
// drown in rounding as it would in sum p (log p - log q), and an error of `shift` cancels to first
// order. Where u is not small, a term is q - p - p u. Where p is 0 it is q (0 log 0 = 0), also if
// both logits are -infinity.
__device__ float DivergenceTerm(float p, float q, float u) {
  if (p == 0.0f) return q;
  if (!(fabsf(u) < 0.5f)) return fmaf(-p, u, q - p);
  float series = 1.0f / 40320;
  series = fmaf(series, u, 1.0f / 5040);
  series = fmaf(series, u, 1.0f / 720);
  series = fmaf(series, u, 1.0f / 120);
  series = fmaf(series, u, 1.0f / 24);
  series = fmaf(series, u, 1.0f / 6);
  series = fmaf(series, u, 0.5f);
  return p * u * u * series;
}

// A block per row. scores: [rows, 5]: those of ScoreKernel of the reference, of the test, and KL.
__global__ void CompareKernel(View<const float> reference, View<const float> test,
                              const int32_t* targets, View<double> scores) {
  SharedMemory shared;
  const Scratch scratch(shared);
  const float* r = reference.Row(blockIdx.x);
  const float* t = test.Row(blockIdx.x);
  const LogitStats r_stats = StatsOf(r, reference.cols, scratch);
  const LogitStats t_stats = StatsOf(t, reference.cols, scratch);
  const auto r_scale = static_cast<float>(1.0 / r_stats.sum);
  const auto t_scale = static_cast<float>(1.0 / t_stats.sum);
  const auto shift = static_cast<float>(LogSumExp(t_stats) - LogSumExp(r_stats));
  double sum = 0;
  for (int64_t i = threadIdx.x; i < reference.cols; i += kThreads) {
    const float p = expf(r[i] - r_stats.max) * r_scale;
    const float q = expf(t[i] - t_stats.max) * t_scale;
    sum += static_cast<double>(DivergenceTerm(p, q, (t[i] - r[i]) - shift));
  }
  sum = BlockReduce(sum, 0.0, Sum(), scratch.doubles);
  if (threadIdx.x != 0) return;
  const int32_t target = targets[blockIdx.x];
  double* to = scores.Row(blockIdx.x);
  to[0] = LogProb(r_stats, r[target]);
  to[1] = r_stats.argmax;
  to[2] = LogProb(t_stats, t[target]);
  to[3] = t_stats.argmax;
  to[4] = sum;
}

// Waits.
std::vector<double> OnHost(Exec& exec, Matrix scores) {
  std::vector<double> host(static_cast<size_t>(scores.size()));
  const int64_t row_bytes = scores.cols * SizeOf(scores.dtype);
  StreamOf(exec).CopyToHost(host.data(), row_bytes, scores.data, row_bytes, row_bytes, scores.rows);
  return host;
}

}  // namespace

void CudaBackend::ScoreLogits(Exec& exec, ConstMatrix logits, std::span<const int32_t> targets,
                              std::span<TokenScore> scores) {
  CheckScoreLogits(logits, targets, scores);
  if (scores.empty()) return;
  Workspace::Scope scope(exec.workspace);
  constexpr int64_t kValues = 2;
  const Matrix results = scope.Take(DType::kF64, logits.rows, kValues);
  Launch(exec, ScoreKernel, {logits.rows, 1, kThreads, kScratchBytes}, In<float>(logits),
         OnDevice(exec, scope, targets), Out<double>(results));
  const std::vector<double> values = OnHost(exec, results);
  for (size_t r = 0; r < scores.size(); ++r) {
    const double* of = values.data() + r * kValues;
    scores[r] = {of[0], static_cast<int32_t>(of[1])};
  }
}

void CudaBackend::CompareLogits(Exec& exec, ConstMatrix reference, ConstMatrix test,
                                std::span<const int32_t> targets,
                                std::span<TokenComparison> scores) {
  CheckCompareLogits(reference, test, targets, scores);
  if (scores.empty()) return;
  Workspace::Scope scope(exec.workspace);
  constexpr int64_t kValues = 5;
  const Matrix results = scope.Take(DType::kF64, reference.rows, kValues);
  Launch(exec, CompareKernel, {reference.rows, 1, kThreads, kScratchBytes}, In<float>(reference),
         In<float>(test), OnDevice(exec, scope, targets), Out<double>(results));
  const std::vector<double> values = OnHost(exec, results);
  for (size_t r = 0; r < scores.size(); ++r) {
    const double* of = values.data() + r * kValues;
    scores[r] = {{of[0], static_cast<int32_t>(of[1])}, {of[2], static_cast<int32_t>(of[3])}, of[4]};
  }
}

}  // namespace quantmill::QUANTMILL_CUDA
