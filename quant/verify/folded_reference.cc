#include "quant/verify/folded_reference.h"

namespace quantmill {

FoldedReference::FoldedReference(const ModelSource& reference,
                                 const std::map<std::string, BlockFolding>& folding) {
  for (const BlockSpec& block : reference.spec().blocks) {
    const auto found = folding.find(block.prefix);
    if (found == folding.end()) continue;
    blocks_.push_back(std::make_unique<BlockSource>(reference, block, found->second));
    const BlockSource* source = blocks_.back().get();
    for (const auto& [tensor, values] : source->changed_tensors()) vectors_[tensor] = source;
    for (const LinearSpec* linear : block.Linears()) {
      if (source->Folds(*linear)) linears_[linear->name] = {source, linear};
    }
  }
}

std::optional<std::vector<std::byte>> FoldedReference::Bytes(const std::string& tensor) const {
  const auto found = vectors_.find(tensor);
  if (found == vectors_.end()) return std::nullopt;
  return found->second->StoredTensor(tensor);
}

Tensor FoldedReference::Weight(const std::string& module) const {
  const auto found = linears_.find(module);
  if (found == linears_.end()) return {};
  const auto& [source, linear] = found->second;
  return source->Weight(*linear);
}

}  // namespace quantmill
