#include "quant/model/rotation.h"

#include <algorithm>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

// Any value would do; it is part of what an artifact records.
constexpr uint64_t kSeed = 1;

[[noreturn]] void Refuse(const std::string& why) {
  throw Error(ErrorCode::kUsage, "--rotate", why);
}

void CheckRotatable(const ModelSource& source) {
  const DecoderSpec& spec = source.spec();
  if (spec.norm != NormKind::kRms) {
    Refuse(spec.architecture +
           " has norms that subtract the mean, which a rotation changes; leave --rotate out");
  }
  for (const std::string& name : source.unknown_tensors()) {
    const std::vector<int64_t>& shape = source.checkpoint().Info(name).shape;
    if (std::ranges::find(shape, spec.hidden) == shape.end()) continue;
    Refuse("'" + name + "' belongs to no layer of " + spec.architecture +
           " that quantmill knows, and may read the residual stream: rotated, it would read noise");
  }
}

}  // namespace

Rotation::Rotation(const ModelSource& source) {
  CheckRotatable(source);
  const DecoderSpec& spec = source.spec();
  hidden_ = Hadamard::OfSize(spec.hidden, kSeed);
  if (!hidden_) {
    Refuse("the hidden size " + std::to_string(spec.hidden) +
           " is no product of 2 and of the orders of Paley's Hadamard matrices up to " +
           std::to_string(Hadamard::kLargestOrder) + "; leave --rotate out");
  }
  head_ = Hadamard::OfSize(spec.head_dim, kSeed + 1);

  tensors_[spec.embedding] = {spec.embedding, "", &*hidden_, nullptr, false};
  tensors_[spec.final_norm].ones = true;
  tensors_[spec.lm_head.name + ".weight"] = {source.WeightName(spec.lm_head), spec.final_norm,
                                             &*hidden_, nullptr, false};
  for (const BlockSpec& block : spec.blocks) AddBlock(block);
}

void Rotation::AddBlock(const BlockSpec& block) {
  const Hadamard* head = head_ ? &*head_ : nullptr;
  tensors_[block.attention_norm].ones = true;
  tensors_[block.mlp_norm].ones = true;
  AddReader(block.query, block.attention_norm, nullptr);
  AddReader(block.key, block.attention_norm, nullptr);
  AddReader(block.value, block.attention_norm, head);
  AddWriter(block.output, head);
  AddReader(block.gate, block.mlp_norm, nullptr);
  AddReader(block.up, block.mlp_norm, nullptr);
  AddWriter(block.down, nullptr);
}

void Rotation::AddReader(const LinearSpec& linear, const std::string& norm, const Hadamard* rows) {
  const std::string weight = linear.name + ".weight";
  tensors_[weight] = {weight, norm, &*hidden_, rows, false};
  if (!linear.bias || rows == nullptr) return;
  const std::string bias = linear.name + ".bias";
  tensors_[bias] = {bias, "", nullptr, rows, false};
}

void Rotation::AddWriter(const LinearSpec& linear, const Hadamard* columns) {
  const std::string weight = linear.name + ".weight";
  tensors_[weight] = {weight, "", columns, &*hidden_, false};
  if (!linear.bias) return;
  const std::string bias = linear.name + ".bias";
  tensors_[bias] = {bias, "", nullptr, &*hidden_, false};
}

nlohmann::json Rotation::Json() const {
  return {{"hidden", hidden_->factors()}, {"head", head_ ? head_->factors() : ""}, {"seed", kSeed}};
}

}  // namespace quantmill
