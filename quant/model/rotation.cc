#include "quant/model/rotation.h"

#include <algorithm>
#include <nlohmann/json.hpp>

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
  for (const BlockSpec& block : spec.blocks) {
    if (block.attention_post_norm.empty() && block.mlp_post_norm.empty()) continue;
    Refuse(
        spec.architecture +
        " has norms behind attention and MLP, whose gains are of channels that a rotation mixes; "
        "leave --rotate out");
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

  tensors_[spec.embedding] = {.from = spec.embedding, .columns = &*hidden_};
  tensors_[spec.final_norm].ones = true;
  tensors_[spec.lm_head.name + ".weight"] = {
      .from = source.WeightName(spec.lm_head), .gain = spec.final_norm, .columns = &*hidden_};
  for (const BlockSpec& block : spec.blocks) AddBlock(block);
}

void Rotation::AddBlock(const BlockSpec& block) {
  const Hadamard* head = head_ ? &*head_ : nullptr;
  tensors_[block.attention_norm].ones = true;
  tensors_[block.mlp_norm].ones = true;
  for (const LinearSpec* linear : block.LinearsAt(Site::kAttentionIn)) {
    AddReader(*linear, block.attention_norm);
  }
  if (head != nullptr) AddHeads(block.Stored(block.value));
  AddWriter(block.output, head);
  for (const LinearSpec* linear : block.LinearsAt(Site::kMlpIn)) AddReader(*linear, block.mlp_norm);
  for (const LinearSpec* linear : block.RoutingLinears()) AddReader(*linear, block.mlp_norm);
  for (const SharedInput& input : block.SharedInputs()) {
    if (input.site == Site::kMlpOut) AddWriter(*block.LinearsAt(input).front(), nullptr);
  }
}

void Rotation::AddReader(const LinearSpec& linear, const std::string& norm) {
  const std::string weight = linear.name + ".weight";
  tensors_[weight] = {.from = weight, .gain = norm, .columns = &*hidden_};
}

void Rotation::AddHeads(const StoredRows& value) {
  const auto turn = [&](const std::string& name) {
    RotatedTensor& tensor = tensors_[name];
    tensor.from = name;
    tensor.rows = &*head_;
    tensor.row_runs = value.rows;
  };
  turn(value.linear->name + ".weight");
  if (value.linear->bias) turn(value.linear->name + ".bias");
}

void Rotation::AddWriter(const LinearSpec& linear, const Hadamard* columns) {
  const std::string weight = linear.name + ".weight";
  const RowRuns all{0, linear.out, linear.out, 1};
  tensors_[weight] = {.from = weight, .columns = columns, .rows = &*hidden_, .row_runs = all};
  if (!linear.bias) return;
  const std::string bias = linear.name + ".bias";
  tensors_[bias] = {.from = bias, .rows = &*hidden_, .row_runs = all};
}

nlohmann::json Rotation::Json() const {
  return {{"hidden", hidden_->factors()}, {"head", head_ ? head_->factors() : ""}, {"seed", kSeed}};
}

}  // namespace quantmill
