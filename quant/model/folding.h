// Scales of inputs that are folded into the op before: AWQ's and SmoothQuant's.
#ifndef QUANTMILL_QUANT_MODEL_FOLDING_H_
#define QUANTMILL_QUANT_MODEL_FOLDING_H_

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "quant/model/decoder_spec.h"

namespace quantmill {

// For each shared input of one block a vector s: column j of the linears that read it is multiplied
// by s_j, and what produces input j divided by it, so that the block computes what it did:
//   kAttentionIn, kMlpIn   the gain of the norm, and its bias                      [hidden]
//   kAttentionOut          row j of value, and its bias           [kv_heads * head_dim]: the query
//                          heads that read one key-value head share its scales
//   kMlpOut                row j of up, and its bias (exact because down reads
//                          activation(gate) * up, or ReLU(up)); of an expert: of its own up  [ffn]
// A mixture's router and shared gate read kMlpIn as well and stay dense: their stored columns are
// multiplied too, which is exact where the scales are powers of two (quantize folds no others
// there).
// Values are BF16, so that the record of a folding is small; positive and finite. BlockSource
// (block_source.h) applies one.
class BlockFolding {
 public:
  // Empty: ones.
  const std::vector<BF16>& at(const SharedInput& input) const;
  std::vector<BF16>& at(const SharedInput& input) { return scales_[input]; }
  bool identity() const;

  // By shared input; those that are folded, and empty ones.
  const std::map<SharedInput, std::vector<BF16>>& all() const { return scales_; }

  friend bool operator==(const BlockFolding&, const BlockFolding&) = default;

 private:
  std::map<SharedInput, std::vector<BF16>> scales_;
};

// Whether an input of the block can be folded at all. Not where something else reads the norm (one
// norm for both halves, or behind them), nor at the down projection of a plain MLP whose activation
// does not let scales through.
bool IsFoldable(const DecoderSpec& spec, const BlockSpec& block, const SharedInput& input);

// Length of the vector of `input`, as above.
int64_t FoldedWidth(const DecoderSpec& spec, const BlockSpec& block, const SharedInput& input);

// The element of the vector of `site` that scales column `column` of the site's linears.
int64_t FoldedIndex(const DecoderSpec& spec, Site site, int64_t column);

// {"attention_in": "3f803f80...", "mlp_out.3": ..., ...}: four hexadecimal digits for each value;
// the number is an expert's; inputs that are not folded are left out.
nlohmann::json FoldingJson(const BlockFolding& folding);

// The inverse. Throws Error(kBadInput, where) naming the key for another key, a text of the wrong
// length, a digit that is none, a value that is not positive and finite, or a site of `block` that
// is not foldable.
BlockFolding ParseFolding(const nlohmann::json& json, const DecoderSpec& spec,
                          const BlockSpec& block, const std::string& where);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_FOLDING_H_
