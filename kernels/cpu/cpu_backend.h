// The cpu backend: host memory, one thread pool, kernels chosen by instruction set. The methods are
// defined by topic: cpu_backend.cc (memory), cpu_matmul.cc (weights, MatMul, Gram), cpu_forward.cc
// (norm, rope, activation, attention, scores), cpu_solve.cc (grids, factorization, GPTQ).
#ifndef QUANTMILL_KERNELS_CPU_CPU_BACKEND_H_
#define QUANTMILL_KERNELS_CPU_CPU_BACKEND_H_

#include <memory>
#include <span>

#include "kernels/block_scaled_linear.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/isa.h"
#include "kernels/ops.h"

namespace quantmill::cpu {

class CpuRoundedLinear;

// Runs every op to its end before returning. Holds the pool that its ops use.
class CpuStream : public Stream {
 public:
  explicit CpuStream(ThreadPool& pool) : pool_(pool) {}
  void Synchronize() override {}
  void RunAfter(Stream& /*other*/) override {}
  ThreadPool& pool() { return pool_; }

 private:
  ThreadPool& pool_;
};

// The pool behind an Exec of this backend.
inline ThreadPool& PoolOf(Exec& exec) { return static_cast<CpuStream&>(exec.stream).pool(); }

class CpuBackend : public Backend {
 public:
  CpuBackend(Isa isa, int threads) : isa_(isa), pool_(threads) {}

  BackendInfo Info() const override;
  std::unique_ptr<Stream> NewStream() override;
  Tensor Empty(DType dtype, int64_t rows, int64_t cols) override;
  void Upload(Exec& exec, ConstMatrix host, Matrix device) override;
  void Download(Exec& exec, ConstMatrix device, Matrix host) override;
  void Zero(Exec& exec, Matrix x) override;
  std::unique_ptr<PackedLinear> PackDense(Exec& exec, ConstMatrix weight, Compute compute) override;
  std::unique_ptr<PackedLinear> PackQuantized(Exec& exec, const QuantizedLinear& linear,
                                              Compute compute) override;
  void EmbedRows(Exec& exec, ConstMatrix table, std::span<const int32_t> ids, float scale,
                 Matrix out) override;
  void AddRows(Exec& exec, ConstMatrix table, std::span<const int32_t> ids, Matrix out) override;
  void Convert(Exec& exec, ConstMatrix x, Matrix out) override;
  void Norm(Exec& exec, ConstMatrix x, const NormParams& params, Matrix out) override;
  void MatMul(Exec& exec, ConstMatrix x, const PackedLinear& w, ConstMatrix bias, MatMulMode mode,
              Matrix y) override;
  void Rope(Exec& exec, const BatchPlan& plan, const RopeParams& params, Matrix x) override;
  void GatedActivation(Exec& exec, Activation activation, ConstMatrix gate, ConstMatrix up,
                       Matrix out) override;
  void GatherRows(Exec& exec, ConstMatrix x, std::span<const int32_t> rows, Matrix out) override;
  void ScatterAdd(Exec& exec, ConstMatrix x, std::span<const int32_t> rows,
                  std::span<const float> factors, Matrix y) override;
  std::unique_ptr<KvStore> NewKvStore(Exec& exec, const KvShape& shape) override;
  void CopyKvBlock(Exec& exec, KvStore& store, int32_t from, int32_t to) override;
  std::unique_ptr<BatchPlan> PlanBatch(Exec& exec,
                                       std::span<const SequenceStep> sequences) override;
  void AppendKv(Exec& exec, const BatchPlan& plan, int64_t layer, ConstMatrix k, ConstMatrix v,
                KvStore& store) override;
  void Attention(Exec& exec, const BatchPlan& plan, int64_t layer, const AttentionParams& params,
                 ConstMatrix q, const KvStore& store, Matrix out) override;
  void ScoreLogits(Exec& exec, ConstMatrix logits, std::span<const int32_t> targets,
                   std::span<TokenScore> scores) override;
  void CompareLogits(Exec& exec, ConstMatrix reference, ConstMatrix test,
                     std::span<const int32_t> targets, std::span<TokenComparison> scores) override;
  void SoftCap(Exec& exec, float cap, Matrix logits) override;
  void AddGram(Exec& exec, ConstMatrix x, Matrix gram) override;
  void AddRange(Exec& exec, ConstMatrix x, Matrix range) override;
  void AddCross(Exec& exec, ConstMatrix x, ConstMatrix y, Matrix cross) override;
  void MinMaxGrid(Exec& exec, ConstMatrix weight, const QuantScheme& scheme, Matrix scales,
                  Matrix zero_points) override;
  void RoundToGrid(Exec& exec, ConstMatrix weight, const QuantScheme& scheme, ConstMatrix scales,
                   ConstMatrix zero_points, Matrix codes) override;
  void SearchGrid(Exec& exec, ConstMatrix weight, ConstMatrix blocks, const QuantScheme& scheme,
                  const GridSearch& search, Matrix scales, Matrix zero_points) override;
  void PermuteGram(Exec& exec, std::span<const int32_t> order, Matrix gram) override;
  FactorResult FactorGram(Exec& exec, ConstMatrix diagonal, float damp, Precision precision,
                          Matrix gram) override;
  void SolveGram(Exec& exec, ConstMatrix factor, std::span<const int32_t> order, Matrix x) override;
  void GptqSolve(Exec& exec, const GptqProblem& problem, Matrix codes, Matrix loss) override;
  void RefineCodes(Exec& exec, const GptqProblem& problem, ConstMatrix diagonal, int sweeps,
                   Matrix codes) override;
  void QuadraticForm(Exec& exec, ConstMatrix delta, ConstMatrix gram, ConstMatrix diagonal,
                     Matrix result) override;

 private:
  // MatMul of a weight whose inputs are rounded; shapes are checked.
  void RoundToBlocks(Exec& exec, ConstMatrix x, const BlockRounding& rounding, Matrix out);
  void RoundedMatMul(Exec& exec, ConstMatrix x, const CpuRoundedLinear& w, ConstMatrix bias,
                     MatMulMode mode, Matrix y);

  Isa isa_;
  ThreadPool pool_;
};

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_CPU_BACKEND_H_
