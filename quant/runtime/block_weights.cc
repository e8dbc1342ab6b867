#include "quant/runtime/block_weights.h"

namespace quantmill {

namespace {

Tensor OnDevice(Backend& backend, Exec& exec, const Tensor& host) {
  Tensor device = backend.Empty(DType::kF32, host.rows(), host.cols());
  backend.Upload(exec, host, device);
  exec.stream.Synchronize();
  return device;
}

std::unique_ptr<PackedLinear> LoadWeight(Backend& backend, Exec& exec, const ModelSource& source,
                                         const LinearSpec& linear, Compute compute) {
  std::unique_ptr<PackedLinear> weight;
  if (source.SchemeOf(linear)) {
    weight = backend.PackQuantized(exec, source.ReadQuantized(linear), compute);
  } else {
    weight = backend.PackDense(exec, source.DenseWeight(linear).view(), compute);
  }
  source.Release(linear);
  return weight;
}

std::unique_ptr<PackedLinear> LoadFolded(Backend& backend, Exec& exec, const BlockSource& source,
                                         const LinearSpec& linear, Compute compute) {
  if (!source.Folds(linear)) return LoadWeight(backend, exec, source.source(), linear, compute);
  return backend.PackDense(exec, source.Weight(linear), compute);
}

Tensor LoadBias(Backend& backend, Exec& exec, const ModelSource& source, const LinearSpec& linear) {
  if (!linear.bias) return {};
  return LoadVector(backend, exec, source, linear.name + ".bias");
}

}  // namespace

Tensor LoadVector(Backend& backend, Exec& exec, const ModelSource& source,
                  const std::string& name) {
  if (name.empty()) return {};
  return OnDevice(backend, exec, source.ReadVector(name));
}

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

BlockWeights LoadBlockExceptWeights(Backend& backend, Exec& exec, const BlockSource& source,
                                    Compute compute) {
  const BlockSpec& block = source.block();
  const auto load = [&](const std::string& name) {
    return name.empty() ? Tensor() : OnDevice(backend, exec, source.Vector(name));
  };
  BlockWeights weights;
  weights.attention_norm = load(block.attention_norm);
  weights.mlp_norm = load(block.mlp_norm);
  weights.attention_norm_bias = load(block.attention_norm_bias);
  weights.mlp_norm_bias = load(block.mlp_norm_bias);
  weights.attention_post_norm = load(block.attention_post_norm);
  weights.mlp_post_norm = load(block.mlp_post_norm);
  weights.query_norm = load(block.query_norm);
  weights.key_norm = load(block.key_norm);
  for (const LinearSpec* linear : block.Linears()) {
    weights.linears.push_back({nullptr, load(linear->bias ? linear->name + ".bias" : "")});
  }
  for (const LinearSpec* linear : block.RoutingLinears()) {
    weights.routing.push_back({LoadFolded(backend, exec, source, *linear, compute), Tensor()});
  }
  return weights;
}

Tensor LoadFloatWeight(Backend& backend, Exec& exec, const BlockSource& source,
                       const LinearSpec& linear) {
  Tensor weight = backend.Empty(DType::kF32, linear.out, linear.in);
  if (source.Folds(linear)) {
    const Tensor folded = source.Weight(linear);
    backend.Upload(exec, folded, weight);
    exec.stream.Synchronize();
    return weight;
  }
  // As it is stored: that is less to bring over.
  const DenseMatrix stored = source.source().DenseWeight(linear);
  backend.Upload(exec, stored, weight);
  exec.stream.Synchronize();
  source.source().Release(linear);
  return weight;
}

BlockWeights LoadBlock(Backend& backend, Exec& exec, const BlockSource& source, Compute compute) {
  BlockWeights weights = LoadBlockExceptWeights(backend, exec, source, compute);
  const std::vector<const LinearSpec*> linears = source.block().Linears();
  for (size_t i = 0; i < linears.size(); ++i) {
    weights.linears[i].weight = LoadFolded(backend, exec, source, *linears[i], compute);
  }
  return weights;
}

BlockWeights LoadBlock(Backend& backend, Exec& exec, const ModelSource& source,
                       const BlockSpec& block, Compute compute) {
  BlockWeights weights = LoadBlockExceptWeights(backend, exec, BlockSource(source, block), compute);
  const std::vector<const LinearSpec*> linears = block.Linears();
  for (size_t i = 0; i < linears.size(); ++i) {
    weights.linears[i].weight = LoadWeight(backend, exec, source, *linears[i], compute);
  }
  return weights;
}

}  // namespace quantmill
