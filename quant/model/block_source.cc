#include "quant/model/block_source.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
BlockSource::BlockSource(const ModelSource& source, const BlockSpec& block, BlockFolding folding)
    : source_(source), block_(block), folding_(std::move(folding)) {
  for (const Site site : kSites) {
    const std::vector<BF16>& scales = folding_.at(site);
    if (scales.empty()) continue;
    Check(IsFoldable(source.spec(), block, site), "BlockSource: a site that cannot be folded");
    Check(std::ssize(scales) == FoldedWidth(source.spec(), site),
          "BlockSource: a folding of another width");
    std::vector<float>& effective = effective_[static_cast<size_t>(site)];
    for (const BF16 s : scales) effective.push_back(ToFloat(s));
  }
  FoldGain(Site::kAttentionIn, block.attention_norm);
  FoldNormBias(Site::kAttentionIn, block.attention_norm, block.attention_norm_bias);
  FoldGain(Site::kMlpIn, block.mlp_norm);
  FoldNormBias(Site::kMlpIn, block.mlp_norm, block.mlp_norm_bias);
  FoldBias(Site::kAttentionOut, block.value);
  FoldBias(Site::kMlpOut, block.up);
  for (const Site site : kSites) {
    const std::vector<float>& effective = effective_[static_cast<size_t>(site)];
    if (effective.empty()) continue;
    std::vector<float>& columns = columns_[static_cast<size_t>(site)];
    const int64_t in = block.LinearsAt(site).front()->in;
    for (int64_t i = 0; i < in; ++i) {
      columns.push_back(effective[static_cast<size_t>(FoldedIndex(source.spec(), site, i))]);
    }
  }
}

void BlockSource::FoldBias(Site site, const LinearSpec& producer) {
  const StoredRows stored = block_.Stored(producer);
  if (stored.linear->bias) FoldVector(site, stored.linear->name + ".bias", stored.rows, 0);
}

void BlockSource::FoldGain(Site site, const std::string& name) {
  const int64_t hidden = source_.spec().hidden;
  FoldVector(site, name, {0, hidden, hidden, 1}, source_.spec().gain_offset);
}

void BlockSource::FoldNormBias(Site site, const std::string& gain, const std::string& bias) {
  std::vector<float>& scales = effective_[static_cast<size_t>(site)];
  if (scales.empty() || bias.empty()) return;
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
void BlockSource::FoldVector(Site site, const std::string& name, const RowRuns& rows,
                             float offset) {
  std::vector<float>& scales = effective_[static_cast<size_t>(site)];
  if (scales.empty()) return;
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

Site BlockSource::SiteOf(const LinearSpec& linear) const {
  for (const Site site : kSites) {
    for (const LinearSpec* candidate : block_.LinearsAt(site)) {
      if (candidate->name == linear.name) return site;
    }
  }
  Check(false, "BlockSource: the linear is not of this block");
  return Site::kAttentionIn;
}

const std::vector<float>& BlockSource::ColumnScales(const LinearSpec& linear) const {
  return columns_[static_cast<size_t>(SiteOf(linear))];
}

// [out], or empty: ones.
std::vector<float> BlockSource::RowScales(const LinearSpec& linear) const {
  for (const auto& [producer, site] :
       {std::pair(&block_.value, Site::kAttentionOut), std::pair(&block_.up, Site::kMlpOut)}) {
    const std::vector<float>& scales = effective_[static_cast<size_t>(site)];
    const auto [stored, rows] = block_.Stored(*producer);
    if (scales.empty() || stored->name != linear.name) continue;
    std::vector<float> all(static_cast<size_t>(linear.out), 1.0f);
    for (size_t j = 0; j < scales.size(); ++j) {
      all[static_cast<size_t>(rows.Row(static_cast<int64_t>(j)))] = scales[j];
    }
    return all;
  }
  return {};
}

bool BlockSource::Folds(const LinearSpec& linear) const {
  return !ColumnScales(linear).empty() || !RowScales(linear).empty();
}

Tensor BlockSource::Weight(const LinearSpec& linear) const {
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

std::vector<std::byte> BlockSource::StoredVector(const std::string& name) const {
  return StoredAs(source_.checkpoint().View(name).dtype, changed_.at(name));
}

}  // namespace quantmill
