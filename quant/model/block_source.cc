#include "quant/model/block_source.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/core/error.h"

namespace quantmill {
namespace {

const std::vector<float>& Ones() {
  static const std::vector<float> kNone;
  return kNone;
}

}  // namespace

BlockSource::BlockSource(const ModelSource& source, const BlockSpec& block, BlockFolding folding)
    : source_(source), block_(block), folding_(std::move(folding)) {
  for (const Site site : kSites) {
    const std::vector<BF16>& scales = folding_.at(site);
    if (scales.empty()) continue;
    Check(std::ssize(scales) == FoldedWidth(source.spec(), site),
          "BlockSource: a folding of another width");
    std::vector<float>& effective = effective_[static_cast<size_t>(site)];
    for (const BF16 s : scales) effective.push_back(ToFloat(s));
  }
  FoldVector(Site::kAttentionIn, block.attention_norm);
  FoldVector(Site::kMlpIn, block.mlp_norm);
  if (block.value.bias) FoldVector(Site::kAttentionOut, block.value.name + ".bias");
  if (block.up.bias) FoldVector(Site::kMlpOut, block.up.name + ".bias");
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

void BlockSource::FoldVector(Site site, const std::string& name) {
  std::vector<float>& scales = effective_[static_cast<size_t>(site)];
  if (scales.empty()) return;
  const DType dtype = source_.checkpoint().View(name).dtype;
  const Tensor dense = source_.ReadVector(name);
  std::vector<float>& stored = changed_[name];
  for (size_t j = 0; j < scales.size(); ++j) {
    const float value = dense.Row<float>(0)[j];
    const float divided = RoundTo(dtype, value / scales[j]);
    if (value == 0) {
      stored.push_back(value);
    } else if (divided == 0 || !std::isfinite(divided)) {
      stored.push_back(value);
      scales[j] = 1;
    } else {
      stored.push_back(divided);
      scales[j] = value / divided;
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

const std::vector<float>& BlockSource::RowScales(const LinearSpec& linear) const {
  if (linear.name == block_.value.name) {
    return effective_[static_cast<size_t>(Site::kAttentionOut)];
  }
  if (linear.name == block_.up.name) return effective_[static_cast<size_t>(Site::kMlpOut)];
  return Ones();
}

bool BlockSource::Folds(const LinearSpec& linear) const {
  return !ColumnScales(linear).empty() || !RowScales(linear).empty();
}

Tensor BlockSource::Weight(const LinearSpec& linear) const {
  const ConstMatrix stored = source_.DenseWeight(linear);
  const std::vector<float>& columns = ColumnScales(linear);
  const std::vector<float>& rows = RowScales(linear);
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
