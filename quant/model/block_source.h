// The dense weights of one block with a folding applied: what is quantized, and what the written
// artifact is compared with.
#ifndef QUANTMILL_QUANT_MODEL_BLOCK_SOURCE_H_
#define QUANTMILL_QUANT_MODEL_BLOCK_SOURCE_H_

#include <array>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "quant/model/folding.h"
#include "quant/model/model_source.h"

namespace quantmill {

// Borrows `source` (Weight needs a dense checkpoint) and `block` (one of source.spec().blocks);
// both must outlive it. Const methods may be called from any thread. All arithmetic is in float,
// each operation rounded once, in the order written here: quantize and verify get the same bits.
//
// Norm gains and biases are stored in the checkpoint's type T, which holds v / s only nearly; so
// what is folded is the scale that the stored value really has:
//   stored_j = T(v_j / s_j);   s'_j = v_j / stored_j
// Gains are stored less c, DecoderSpec::gain_offset; there v_j = gain_j + c and
//   stored_j = T(v_j / s_j - c);   s'_j = v_j / (stored_j + c)
// Where v_j is 0, s'_j = s_j. Where what v_j becomes is 0 or infinite though v_j is neither,
// nothing is folded: the stored value stays, s'_j = 1. A layer norm's gain decides s'_j; its bias
// is divided by that and rounded to T: the one value that is folded nearly (and nothing is where it
// cannot be divided). Where nothing is stored for j (value and up without a bias), s'_j = s_j.
class BlockSource {
 public:
  BlockSource(const ModelSource& source, const BlockSpec& block, BlockFolding folding = {});

  const ModelSource& source() const { return source_; }
  const BlockSpec& block() const { return block_; }
  const BlockFolding& folding() const { return folding_; }

  // Whether Weight(linear) differs from the checkpoint's.
  bool Folds(const LinearSpec& linear) const;
  // [out, in] F32 host memory: (w[o, i] * s'_i of the linear's own site) / s'_o of the site that
  // reads its output (the rows of value, up; others / 1). Exactly the checkpoint's where
  // !Folds(linear). The stored tensor is checked to be finite and its pages are released.
  // Error(kBadInput) naming the tensor also if a folded weight overflows.
  Tensor Weight(const LinearSpec& linear) const;
  // s' of the columns of the linear's own site, [in]; empty: ones.
  const std::vector<float>& ColumnScales(const LinearSpec& linear) const;
  // A norm's gain or a linear's bias, [1, n] F32 host memory, as it is stored after folding.
  Tensor Vector(const std::string& name) const;

  // The same as the bytes of the stored tensor, in its type. REQUIRES: changed_vectors() has it.
  std::vector<std::byte> StoredVector(const std::string& name) const;

  // The norm gains and biases that are folded, with their values, each exactly representable in the
  // tensor's type.
  const std::map<std::string, std::vector<float>>& changed_vectors() const { return changed_; }

 private:
  void FoldGain(Site site, const std::string& name);
  void FoldVector(Site site, const std::string& name, const RowRuns& rows, float offset);
  void FoldBias(Site site, const LinearSpec& producer);
  void FoldNormBias(Site site, const std::string& gain, const std::string& bias);
  std::vector<float> RowScales(const LinearSpec& linear) const;
  Site SiteOf(const LinearSpec& linear) const;

  const ModelSource& source_;
  const BlockSpec& block_;
  BlockFolding folding_;
  // s' of each site, by FoldedIndex and by column; empty: ones.
  std::array<std::vector<float>, kSites.size()> effective_;
  std::array<std::vector<float>, kSites.size()> columns_;
  std::map<std::string, std::vector<float>> changed_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_BLOCK_SOURCE_H_
