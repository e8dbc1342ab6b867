#include "quant/model/block_source.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
BlockSource::BlockSource(const ModelSource& source, const BlockSpec& block, BlockFolding folding)
    : source_(source), block_(block), folding_(std::move(folding)) {
  PlaceLinears();
  for (const auto& [input, scales] : folding_.all()) {
    if (scales.empty()) continue;
    Check(IsFoldable(source.spec(), block, input), "BlockSource: an input that cannot be folded");
    Check(std::ssize(scales) == FoldedWidth(source.spec(), block, input),
          "BlockSource: a folding of another width");
    std::vector<float>& effective = effective_[input];
    for (const BF16 s : scales) effective.push_back(ToFloat(s));
  }
  FoldGain(Site::kAttentionIn, block.attention_norm);
  FoldNormBias(Site::kAttentionIn, block.attention_norm, block.attention_norm_bias);
  FoldGain(Site::kMlpIn, block.mlp_norm);
  FoldNormBias(Site::kMlpIn, block.mlp_norm, block.mlp_norm_bias);
  FoldBias(Site::kAttentionOut, block.value);
  FoldBias(Site::kMlpOut, block.up);
  for (const auto& [input, effective] : effective_) {
    std::vector<float>& columns = columns_[input];
    const int64_t in = block.LinearsAt(input).front()->in;
    for (int64_t i = 0; i < in; ++i) {
      columns.push_back(effective[static_cast<size_t>(FoldedIndex(source.spec(), input.site, i))]);
    }
  }
  for (const LinearSpec* linear : block.RoutingLinears()) FoldRouting(*linear);
}

void BlockSource::PlaceLinears() {
  for (const SharedInput& input : block_.SharedInputs()) {
    for (const LinearSpec* linear : block_.LinearsAt(input)) {
      places_.emplace(linear->name, Place{input});
    }
  }
  for (const LinearSpec* linear : block_.RoutingLinears()) {
    places_.emplace(linear->name, Place{Site::kMlpIn});
  }
  const auto produces = [&](const LinearSpec& part, const SharedInput& input) {
    const StoredRows stored = block_.Stored(part);
    const auto found = places_.find(stored.linear->name);
    if (found == places_.end()) return;  // a mixture without a shared expert
    found->second.consumer = input;
    found->second.rows = stored.rows;
  };
  produces(block_.value, Site::kAttentionOut);
  produces(block_.up, Site::kMlpOut);
  for (int64_t e = 0; e < std::ssize(block_.mixture.experts); ++e) {
    produces(block_.mixture.experts[static_cast<size_t>(e)].up, {Site::kMlpOut, e});
  }
}

void BlockSource::FoldBias(const SharedInput& input, const LinearSpec& producer) {
  const StoredRows stored = block_.Stored(producer);
  if (stored.linear->bias) FoldVector(input, stored.linear->name + ".bias", stored.rows, 0);
}

void BlockSource::FoldGain(const SharedInput& input, const std::string& name) {
  const int64_t hidden = source_.spec().hidden;
  FoldVector(input, name, {0, hidden, hidden, 1}, source_.spec().gain_offset);
}

void BlockSource::FoldNormBias(const SharedInput& input, const std::string& gain,
                               const std::string& bias) {
  const auto found = effective_.find(input);
  if (found == effective_.end() || bias.empty()) return;
  std::vector<float>& scales = found->second;
  const DType dtype = source_.checkpoint().View(bias).dtype;
  const Tensor gains = source_.ReadVector(gain);
  const Tensor dense = source_.ReadVector(bias);
  std::vector<float>& stored = changed_[bias];
  for (size_t j = 0; j < scales.size(); ++j) {
    const float value = dense.Row<float>(0)[j];
    const float divided = RoundTo(dtype, value / scales[j]);
    if (value != 0 && (divided == 0 || !std::isfinite(divided))) {
      changed_[gain][j] = gains.Row<float>(0)[j];
      scales[j] = 1;
      stored.push_back(value);
    } else {
      stored.push_back(divided);
    }
  }
}

// Scale j is of element rows.Row(j), which is stored less `offset`.
void BlockSource::FoldVector(const SharedInput& input, const std::string& name, const RowRuns& rows,
                             float offset) {
  const auto found = effective_.find(input);
  if (found == effective_.end()) return;
  std::vector<float>& scales = found->second;
  const DType dtype = source_.checkpoint().View(name).dtype;
  const Tensor dense = source_.ReadVector(name);
  std::vector<float>& stored = changed_[name];
  stored.assign(dense.Row<float>(0), dense.Row<float>(0) + dense.cols());
  for (size_t j = 0; j < scales.size(); ++j) {
    float& element = stored[static_cast<size_t>(rows.Row(static_cast<int64_t>(j)))];
    const float value = element + offset;
    if (value == 0) continue;
    const float rounded = RoundTo(dtype, value / scales[j] - offset);
    const float divided = rounded + offset;
    if (divided == 0 || !std::isfinite(divided)) {
      scales[j] = 1;
    } else {
      scales[j] = value / divided;
      element = rounded;
    }
  }
}

void BlockSource::FoldRouting(const LinearSpec& linear) {
  if (ColumnScales(linear).empty()) return;
  const DType dtype = source_.checkpoint().View(linear.name + ".weight").dtype;
  const Tensor weight = Scaled(linear);
  std::vector<float>& stored = changed_[linear.name + ".weight"];
  for (int64_t o = 0; o < linear.out; ++o) {
    for (int64_t i = 0; i < linear.in; ++i) {
      stored.push_back(RoundTo(dtype, weight.Row<float>(o)[i]));
    }
  }
}

const BlockSource::Place& BlockSource::PlaceOf(const LinearSpec& linear) const {
  const auto found = places_.find(linear.name);
  Check(found != places_.end(), "BlockSource: the linear is not of this block");
  return found->second;
}

const std::vector<float>& BlockSource::ColumnScales(const LinearSpec& linear) const {
  static const std::vector<float> kOnes;
  const auto found = columns_.find(PlaceOf(linear).columns);
  return found == columns_.end() ? kOnes : found->second;
}

// [out], or empty: ones.
std::vector<float> BlockSource::RowScales(const LinearSpec& linear) const {
  const Place& place = PlaceOf(linear);
  if (!place.consumer) return {};
  const auto found = effective_.find(*place.consumer);
  if (found == effective_.end()) return {};
  std::vector<float> all(static_cast<size_t>(linear.out), 1.0f);
  for (size_t j = 0; j < found->second.size(); ++j) {
    all[static_cast<size_t>(place.rows.Row(static_cast<int64_t>(j)))] = found->second[j];
  }
  return all;
}

bool BlockSource::Folds(const LinearSpec& linear) const {
  return !ColumnScales(linear).empty() || !RowScales(linear).empty();
}

Tensor BlockSource::Weight(const LinearSpec& linear) const {
  const auto changed = changed_.find(linear.name + ".weight");
  if (changed == changed_.end()) return Scaled(linear);
  Tensor weight = HostTensor(DType::kF32, linear.out, linear.in);
  std::ranges::copy(changed->second, weight.Row<float>(0));
  return weight;
}

Tensor BlockSource::Scaled(const LinearSpec& linear) const {
  const DenseMatrix dense = source_.DenseWeight(linear);
  const ConstMatrix stored = dense;
  const std::vector<float>& columns = ColumnScales(linear);
  const std::vector<float> rows = RowScales(linear);
  Tensor weight = HostTensor(DType::kF32, linear.out, linear.in);
  for (int64_t o = 0; o < linear.out; ++o) {
    auto* row = weight.Row<float>(o);
    WidenRow(stored, o, row);
    if (!columns.empty()) {
      for (int64_t i = 0; i < linear.in; ++i) row[i] *= columns[static_cast<size_t>(i)];
    }
    if (!rows.empty()) {
      const float divisor = rows[static_cast<size_t>(o)];
      for (int64_t i = 0; i < linear.in; ++i) row[i] /= divisor;
    }
  }
  source_.Release(linear);
  if (Folds(linear)) {
    CheckFinite(weight, source_.checkpoint().Location(source_.WeightName(linear)) + ", folded");
  }
  return weight;
}

Tensor BlockSource::Vector(const std::string& name) const {
  const auto changed = changed_.find(name);
  if (changed == changed_.end()) return source_.ReadVector(name);
  const auto size = std::ssize(changed->second);
  Tensor vector = HostTensor(DType::kF32, 1, size);
  std::copy(changed->second.begin(), changed->second.end(), vector.Row<float>(0));
  return vector;
}

std::vector<std::byte> BlockSource::StoredTensor(const std::string& name) const {
  return StoredAs(source_.checkpoint().View(name).dtype, changed_.at(name));
}

}  // namespace quantmill
