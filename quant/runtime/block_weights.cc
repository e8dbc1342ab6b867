#include "quant/runtime/block_weights.h"

namespace quantmill {

Tensor LoadVector(Backend& backend, Exec& exec, const ModelSource& source,
                  const std::string& name) {
  const Tensor host = source.ReadVector(name);
  Tensor device = backend.Empty(DType::kF32, 1, host.cols());
  backend.Upload(exec, host, device);
  exec.stream.Synchronize();
  return device;
}

namespace {

std::unique_ptr<PackedLinear> LoadWeight(Backend& backend, Exec& exec, const ModelSource& source,
                                         const LinearSpec& linear, Compute compute) {
  std::unique_ptr<PackedLinear> weight;
  if (source.SchemeOf(linear)) {
    weight = backend.PackQuantized(exec, source.ReadQuantized(linear), compute);
  } else {
    weight = backend.PackDense(exec, source.DenseWeight(linear), compute);
  }
  source.Release(linear);
  return weight;
}

Tensor LoadBias(Backend& backend, Exec& exec, const ModelSource& source, const LinearSpec& linear) {
  if (!linear.bias) return {};
  return LoadVector(backend, exec, source, linear.name + ".bias");
}

}  // namespace

LinearWeights LoadLinear(Backend& backend, Exec& exec, const ModelSource& source,
                         const LinearSpec& linear, Compute compute) {
  return {LoadWeight(backend, exec, source, linear, compute),
          LoadBias(backend, exec, source, linear)};
}

size_t BlockWeights::IndexOf(const BlockSpec& block, const LinearSpec& linear) {
  const std::vector<const LinearSpec*> all = block.Linears();
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i] == &linear) return i;
  }
  Check(false, "IndexOf: the linear is not of this block");
  return 0;
}

BlockWeights LoadBlockExceptWeights(Backend& backend, Exec& exec, const ModelSource& source,
                                    const BlockSpec& block) {
  BlockWeights weights;
  weights.attention_norm = LoadVector(backend, exec, source, block.attention_norm);
  weights.mlp_norm = LoadVector(backend, exec, source, block.mlp_norm);
  if (!block.query_norm.empty()) {
    weights.query_norm = LoadVector(backend, exec, source, block.query_norm);
  }
  if (!block.key_norm.empty()) {
    weights.key_norm = LoadVector(backend, exec, source, block.key_norm);
  }
  for (const LinearSpec* linear : block.Linears()) {
    weights.linears.push_back({nullptr, LoadBias(backend, exec, source, *linear)});
  }
  return weights;
}

BlockWeights LoadBlock(Backend& backend, Exec& exec, const ModelSource& source,
                       const BlockSpec& block, Compute compute) {
  BlockWeights weights = LoadBlockExceptWeights(backend, exec, source, block);
  const std::vector<const LinearSpec*> linears = block.Linears();
  for (size_t i = 0; i < linears.size(); ++i) {
    weights.linears[i].weight = LoadWeight(backend, exec, source, *linears[i], compute);
  }
  return weights;
}

}  // namespace quantmill
