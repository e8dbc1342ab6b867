// The dense weights of one block with a folding applied: what is quantized, and what the written
// artifact is compared with.
#ifndef QUANTMILL_QUANT_MODEL_BLOCK_SOURCE_H_
#define QUANTMILL_QUANT_MODEL_BLOCK_SOURCE_H_

#include <cstddef>
#include <map>
#include <optional>
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
// Routing linears are stored dense, so theirs are T(w[o, i] * s'_i).
class BlockSource {
 public:
  BlockSource(const ModelSource& source, const BlockSpec& block, BlockFolding folding = {});

  const ModelSource& source() const { return source_; }
  const BlockSpec& block() const { return block_; }
  const BlockFolding& folding() const { return folding_; }

  // `linear`: of the block, a routing linear too. Whether Weight(linear) differs from the
  // checkpoint's.
  bool Folds(const LinearSpec& linear) const;
  // [out, in] F32 host memory: (w[o, i] * s'_i of the linear's own site) / s'_o of the site that
  // reads its output (the rows of value, up; others / 1); routing linears as they are stored.
  // Exactly the checkpoint's where !Folds(linear). The stored tensor is checked to be finite and
  // its pages are released. Error(kBadInput) naming the tensor also if a folded weight overflows.
  Tensor Weight(const LinearSpec& linear) const;
  // s' of the columns of the linear's own input, [in]; empty: ones.
  const std::vector<float>& ColumnScales(const LinearSpec& linear) const;
  // A norm's gain or a linear's bias, [1, n] F32 host memory, as it is stored after folding.
  Tensor Vector(const std::string& name) const;

  // The bytes of a stored tensor, in its type. REQUIRES: changed_tensors() has it.
  std::vector<std::byte> StoredTensor(const std::string& name) const;

  // The dense tensors that are folded (norm gains, biases, weights of routing linears), with their
  // values in row-major order, each exactly representable in the tensor's type.
  const std::map<std::string, std::vector<float>>& changed_tensors() const { return changed_; }

 private:
  // Where a linear's scales are.
  struct Place {
    SharedInput columns;  // what it reads
    // What reads some of its rows, and nothing else does.
    std::optional<SharedInput> consumer = std::nullopt;
    RowRuns rows = {};
  };

  void PlaceLinears();
  void FoldGain(const SharedInput& input, const std::string& name);
  void FoldVector(const SharedInput& input, const std::string& name, const RowRuns& rows,
                  float offset);
  void FoldBias(const SharedInput& input, const LinearSpec& producer);
  void FoldNormBias(const SharedInput& input, const std::string& gain, const std::string& bias);
  void FoldRouting(const LinearSpec& linear);
  Tensor Scaled(const LinearSpec& linear) const;
  const Place& PlaceOf(const LinearSpec& linear) const;
  std::vector<float> RowScales(const LinearSpec& linear) const;

  const ModelSource& source_;
  const BlockSpec& block_;
  BlockFolding folding_;
  std::map<std::string, Place> places_;  // by LinearSpec::name
  // s' of each input that is folded, by FoldedIndex and by column; absent: ones.
  std::map<SharedInput, std::vector<float>> effective_;
  std::map<SharedInput, std::vector<float>> columns_;
  std::map<std::string, std::vector<float>> changed_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_BLOCK_SOURCE_H_
