// The reference of an artifact whose input scales were folded into the op before.
#ifndef QUANTMILL_QUANT_VERIFY_FOLDED_REFERENCE_H_
#define QUANTMILL_QUANT_VERIFY_FOLDED_REFERENCE_H_

#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "quant/model/block_source.h"

namespace quantmill {

// Borrows `reference`, a dense checkpoint. Const methods may be called from any thread.
class FoldedReference {
 public:
  // folding: by BlockSpec::prefix of the reference's blocks; others are ignored. Throws
  // Error(kBadInput) naming a tensor that cannot be folded.
  FoldedReference(const ModelSource& reference, const std::map<std::string, BlockFolding>& folding);

  // The bytes that a folded dense tensor (a norm's gain, a bias) has in the artifact; nothing where
  // it is the reference's own.
  std::optional<std::vector<std::byte>> Bytes(const std::string& tensor) const;
  // The folded weight of a linear, [out, in] F32 host memory; empty where it is the reference's
  // own.
  Tensor Weight(const std::string& module) const;

 private:
  std::vector<std::unique_ptr<BlockSource>> blocks_;
  std::map<std::string, const BlockSource*> vectors_;                                // by tensor
  std::map<std::string, std::pair<const BlockSource*, const LinearSpec*>> linears_;  // by module
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_VERIFY_FOLDED_REFERENCE_H_
