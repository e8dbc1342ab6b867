// The cuda backend: device memory, kernels of this folder, cuBLAS and cuSOLVER. The methods are
// defined by topic in the .cu files beside this one. Where it differs from the other backends
// (ops.h):
//  * Sums of library products depend on the shape of the whole call, so a row's result can differ
//    in its last bits with the number of rows beside it. The same call gives the same bits.
//  * Attention multiplies in BF16, on tensor cores, where the store and its outputs are BF16 and
//    head_dim is a multiple of 8 up to 256; in F32 otherwise.
//  * A PackedLinear keeps codes packed as they come, one byte each, and is decoded before each
//    product.
#ifndef QUANTMILL_KERNELS_CUDA_CUDA_BACKEND_H_
#define QUANTMILL_KERNELS_CUDA_CUDA_BACKEND_H_

#include <memory>
#include <span>

#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/runtime.h"
#include "kernels/ops.h"

namespace quantmill::QUANTMILL_CUDA {

class CudaBackend final : public Backend {
 public:
  // Throws Error(kEnvironment) where there is no device (OpenDevice).
  explicit CudaBackend(int host_threads)
      : device_(OpenDevice()), memory_(device_.memory_overhead), host_threads_(host_threads) {}

  BackendInfo Info() const override;
  std::unique_ptr<Stream> NewStream() override;
  Tensor Empty(DType dtype, int64_t rows, int64_t cols) override;
  Tensor EmptyOnHost(DType dtype, int64_t rows, int64_t cols) override;
  void LimitMemory(int64_t bytes) override { memory_.Limit(bytes); }
  int64_t PeakMemory() const override { return memory_.peak(); }
  void Upload(Exec& exec, ConstMatrix host, Matrix device) override;
  void Download(Exec& exec, ConstMatrix device, Matrix host) override;
  void DownloadLater(Exec& exec, ConstMatrix device, Matrix host) override;
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
  DeviceInfo device_;
  CudaMemory memory_;
  int host_threads_;
};

// out = x in the type of out (F32, F16, BF16; RNE). Same shapes, both in device memory.
void ConvertOnDevice(Exec& exec, ConstMatrix x, Matrix out);

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_CUDA_BACKEND_H_
