// One declarative description of a decoder-only transformer. Families differ in this data, never in
// copies of the forward pass (quant/runtime/block_forward.h).
#ifndef QUANTMILL_QUANT_MODEL_DECODER_SPEC_H_
#define QUANTMILL_QUANT_MODEL_DECODER_SPEC_H_

#include <array>
#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace quantmill {

// A linear layer y = W x (+ b). Tensors: name + ".weight" [out, in] ([in, out] if transposed, as
// GPT-2's are while they are dense), name + ".bias" [out].
struct LinearSpec {
  std::string name;  // module path, e.g. "model.layers.0.self_attn.q_proj"
  int64_t out = 0;
  int64_t in = 0;
  bool bias = false;
  bool transposed = false;

  std::vector<int64_t> stored_shape() const {
    return transposed ? std::vector{in, out} : std::vector{out, in};
  }
};

// Rows of a linear: run r is rows [first + r * stride, first + r * stride + length), stride being
// at least length.
struct RowRuns {
  int64_t first = 0;
  int64_t length = 0;
  int64_t stride = 0;
  int64_t runs = 1;

  int64_t rows() const { return length * runs; }
  // The i-th of them.
  int64_t Row(int64_t i) const { return first + i / length * stride + i % length; }
  bool Contains(int64_t row) const {
    return row >= first && row < first + runs * stride && (row - first) % stride < length;
  }
};

// Where a projection is stored: some rows of a linear (or all).
struct StoredRows {
  const LinearSpec* linear = nullptr;
  RowRuns rows;
};

// The four steps in which a block runs, named by what their linear layers read.
enum class Site : uint8_t { kAttentionIn, kAttentionOut, kMlpIn, kMlpOut };
inline constexpr std::array kSites = {Site::kAttentionIn, Site::kAttentionOut, Site::kMlpIn,
                                      Site::kMlpOut};
const char* NameOf(Site site);

// An input that linear layers of a block have in common: calibration collects one set of statistics
// for each. A site has one, but for the outputs of a mixture: each expert's `down` has its own.
struct SharedInput {
  static constexpr int64_t kNoExpert = -1;

  SharedInput(Site at, int64_t of = kNoExpert)  // NOLINT(google-explicit-constructor): a dense
      : site(at), expert(of) {}                 // block knows sites alone
  friend auto operator<=>(const SharedInput&, const SharedInput&) = default;

  Site site;
  int64_t expert;  // of kMlpOut alone
};
// "mlp output", "mlp output of expert 3".
std::string NameOf(const SharedInput& input);

// down(activation(gate) * up).
struct MlpSpec {
  LinearSpec gate, up, down;
};

// Experts of which each token runs the `top_k` most probable: the output is the sum of theirs, each
// times its probability, softmax(router) over all experts.
struct MixtureSpec {
  LinearSpec router;         // [experts, hidden]
  LinearSpec shared_gate;    // [1, hidden]: its sigmoid scales the shared expert; no name: none
  int64_t top_k = 0;         // at most experts
  bool renormalize = false;  // the chosen probabilities are divided by their sum
  std::vector<MlpSpec> experts;
};

// x += output(attention(rope(norm(query)), rope(norm(key)), value)), each of attention_norm(x);
// x += down(activation(gate) * up), both of mlp_norm(x), or down(activation(up)) without a gate; or
// what `mixture` makes of mlp_norm(x). (DecoderSpec::order has the other orders.)
struct BlockSpec {
  std::string prefix;          // "model.layers.0"
  std::string attention;       // the module of its projections: "model.layers.0.self_attn"
  std::string attention_norm;  // tensor names of gains, [hidden]
  std::string mlp_norm;
  std::string attention_norm_bias;  // of layer norms; empty: none
  std::string mlp_norm_bias;
  // Gains of norms of what attention and MLP give, before it is added to x; empty: none.
  std::string attention_post_norm;
  std::string mlp_post_norm;
  std::string query_norm;  // [head_dim], per head before rope; empty: none
  std::string key_norm;
  LinearSpec query, key, value, output;
  LinearSpec gate, up, down;  // of a mixture: the shared expert; no names or sizes: none
  // Where q, k and v are rows of one stored linear (gate and up likewise), that linear has a name
  // and its parts have none: only sizes. It is solved and stored as it is, since the rows of a
  // linear are independent of each other.
  LinearSpec query_key_value;
  LinearSpec gate_up;  // [gate; up]
  // The rows of query_key_value are this many equal groups, each [its q; its k; its v]: 1, or one
  // for each key-value head.
  int64_t query_key_value_groups = 1;
  MixtureSpec mixture;         // beside the MLP, or instead of it; no experts: none
  int64_t sliding_window = 0;  // positions seen, own included; 0: all

  bool gated() const { return gate.out > 0; }
  bool is_mixture() const { return !mixture.experts.empty(); }

  // Make query, key and value (gate and up), described as if stored apart, rows of linear `name`.
  void FuseQueryKeyValue(const std::string& name, int64_t groups);
  void FuseGateUp(const std::string& name);

  // What reads the input of `site`, part by part, without experts: {&query, &key, &value}, ...
  std::vector<const LinearSpec*> PartsAt(Site site) const;
  // Where a part is stored. Points into this.
  StoredRows Stored(const LinearSpec& part) const;
  // In the order in which they are solved.
  std::vector<SharedInput> SharedInputs() const;
  // The linears that read `input`, in the order in which they are solved and stored. Of kMlpIn:
  // those of all experts, without RoutingLinears.
  std::vector<const LinearSpec*> LinearsAt(const SharedInput& input) const;
  // All: those that LinearsAt has, in the order of kSites, but experts last: gate, up and down of
  // one after the other.
  std::vector<const LinearSpec*> Linears() const;
  // Sets of linears that servers run as one layer, so that each set needs one scheme: those of a
  // site without experts; all linears of all experts.
  std::vector<std::vector<const LinearSpec*>> FusedLinears() const;
  // A mixture's router and shared_gate, which read kMlpIn too. They are small and decide where
  // tokens go: every server keeps them dense, and so does quantize. Not among Linears().
  std::vector<const LinearSpec*> RoutingLinears() const;

 private:
  std::vector<const LinearSpec*> DenseLinearsAt(Site site) const;  // without experts
};

struct RopeSpec {
  int64_t rotary_dim = 0;
  double theta = 0;             // the base of the frequencies, before any scaling
  std::vector<float> inv_freq;  // rotary_dim / 2
  float amplitude = 1;          // multiplies cos and sin (yarn, longrope)
  // Frequencies of sequences longer than original_positions (longrope); empty: the same.
  std::vector<float> long_inv_freq;
  int64_t original_positions = 0;

  // Of a step in which the longest sequence reaches `positions`.
  const std::vector<float>& FrequenciesFor(int64_t positions) const {
    return long_inv_freq.empty() || positions <= original_positions ? inv_freq : long_inv_freq;
  }
};

// How a block's two halves, attention and MLP, and their norms come together in the residual x.
enum class BlockOrder : uint8_t {
  kSequential,  // x += attention(norm(x)); x += mlp(norm(x))
  kParallel,    // x += attention(norm(x)) + mlp(norm(x)), of the same x; the norms may be one
  kPostNorm,    // x = norm(x + attention(x)); x = norm(x + mlp(x))
};

struct DecoderSpec {
  std::string architecture;  // as config.json spells it, e.g. "LlamaForCausalLM"
  // What names of tensors begin with in most files of the family, and lack in some; empty: all have
  // it. `base_dropped`: these names lack it.
  std::string base_prefix;
  bool base_dropped = false;
  int64_t hidden = 0;
  int64_t ffn = 0;  // of most blocks' MLPs, or of the experts; a block's own is up.out
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab = 0;  // rows of the embedding (may exceed the tokenizer's)
  int64_t max_positions = 0;
  NormKind norm = NormKind::kRms;
  float norm_eps = 1e-5f;
  float gain_offset = 0;  // added to the stored gain of every norm
  Activation activation = Activation::kSilu;
  BlockOrder order = BlockOrder::kSequential;
  float attention_scale = 0;    // multiplies q . k; 0: 1 / sqrt(head_dim)
  float attention_softcap = 0;  // of its scores; 0: none
  float logit_softcap = 0;
  RopeSpec rope;                    // rotary_dim 0: none
  RopeSpec window_rope;             // of blocks with a sliding window; rotary_dim 0: `rope`
  std::vector<float> alibi_slopes;  // [heads], see AttentionParams; empty: none
  std::string embedding;            // tensor [vocab, embedding_width()]
  float embedding_scale = 1;        // multiplies its rows; rounded to its type first
  LinearSpec project_in;            // of embedded tokens; no name: none
  std::string position_embedding;   // tensor [max_positions + position_offset, hidden] of what is
  int64_t position_offset = 0;      // added at row position + offset; empty: none
  std::string embedding_norm;       // tensors [hidden]; of the sum; empty: none
  std::string embedding_norm_bias;
  std::string final_norm;  // tensors [hidden]; empty: none
  std::string final_norm_bias;
  LinearSpec project_out;  // of the stream that leaves the last norm; no name: none
  LinearSpec lm_head;      // weight tensor is `embedding` when tied
  bool tied = false;
  std::vector<BlockSpec> blocks;

  void DropBasePrefix();  // from every name
  int64_t embedding_width() const { return project_in.name.empty() ? hidden : project_in.in; }
  int64_t layers() const { return static_cast<int64_t>(blocks.size()); }
  std::vector<const LinearSpec*> Linears() const;  // of all blocks; not lm_head
  // project_in and project_out, where there are any: not quantized, as small as they are.
  std::vector<const LinearSpec*> Projections() const;
  // What loaders may call these modules: with the base's prefix too, where the names lack it.
  std::vector<std::string> LoaderNames(const std::vector<std::string>& modules) const;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_MODEL_DECODER_SPEC_H_
