// The forward pass of one block, in four steps. This is the only forward: generation, evaluation
// and calibration all run it (calibration looks at the inputs between the steps).
#ifndef QUANTMILL_QUANT_RUNTIME_BLOCK_FORWARD_H_
#define QUANTMILL_QUANT_RUNTIME_BLOCK_FORWARD_H_

#include <functional>
#include <vector>

#include "kernels/ops.h"
#include "quant/model/decoder_spec.h"
#include "quant/runtime/block_weights.h"
#include "quant/runtime/routing.h"

namespace quantmill {

// Sees the keys (after rope) and values of a step before they are stored, both
// [tokens, kv_heads * head_dim] F32; the views are valid during the call only.
using KeyValueObserver = std::function<void(ConstMatrix keys, ConstMatrix values)>;

// Where a step's tokens are: their plan, and the layer's slot in the KV store.
struct BlockContext {
  const BatchPlan& plan;
  int64_t layer;
  KvStore& store;
  const KeyValueObserver* observer = nullptr;
};

// For each site, in order:
//     input = Input(site, residual, carried);   Advance(site, input, residual, carried).
// `residual` is [tokens, hidden] F32; `carried` holds what one site hands to the next: the
// attention output after kAttentionIn, the activated MLP after kMlpIn ([tokens, InputWidth of the
// next] of ActivationType(compute)). `pending`, [tokens, PendingWidth()] F32, holds from
// kAttentionOut to kMlpOut what the residual becomes, where the MLP still reads what it was
// (kParallel). A mixture hands nothing on from kMlpIn: its kMlpOut reads the normalized residual
// again and does everything, expert by expert, each on its own tokens alone.
class BlockForward {
 public:
  BlockForward(Backend& backend, Exec& exec, const DecoderSpec& spec, Compute compute)
      : backend_(backend), exec_(exec), spec_(spec), compute_(compute) {}

  DType activation_type() const { return ActivationType(compute_); }
  // Whether the site's input is `carried`, and not the normalized residual.
  static bool ReadsCarried(const BlockSpec& block, Site site) {
    return site == Site::kAttentionOut || (site == Site::kMlpOut && !block.is_mixture());
  }
  // Columns of the site's input.
  int64_t InputWidth(const BlockSpec& block, Site site) const;
  static int64_t PendingWidth(const DecoderSpec& spec) {
    return spec.order == BlockOrder::kParallel ? spec.hidden : 0;
  }

  // The input of the site, [tokens, InputWidth(site)] of activation_type(): `residual` normalized
  // into `scratch` (same shape; under kPostNorm, converted or itself), or `carried` itself.
  ConstMatrix Input(const BlockSpec& block, const BlockWeights& weights, Site site,
                    ConstMatrix residual, ConstMatrix carried, Matrix scratch);

  // Runs the site's linears on `input` and what follows them up to the next site. kAttentionIn and
  // kMlpIn write `carried` ([tokens, InputWidth of the next site], where that reads it); the others
  // add to `residual`.
  void Advance(const BlockSpec& block, const BlockWeights& weights, Site site,
               const BlockContext& context, ConstMatrix input, Matrix residual, Matrix carried,
               Matrix pending);

  // The tokens of each expert of a mixture, by the input of its kMlpIn. Waits.
  std::vector<ExpertTokens> Route(const BlockSpec& block, const BlockWeights& weights,
                                  ConstMatrix input);
  // What the `down` of `mlp` would read, were all these tokens its own: the activated gate and up
  // of a mixture's expert or shared expert. mlp: of kMlpOut. input: of kMlpIn, [tokens, hidden].
  // activated: [tokens, width of the expert] of activation_type().
  void ActivateExpert(const BlockSpec& block, const BlockWeights& weights, const SharedInput& mlp,
                      ConstMatrix input, Matrix activated);

  // All four sites.
  void Run(const BlockSpec& block, const BlockWeights& weights, const BlockContext& context,
           Matrix residual);

 private:
  void Attend(const BlockSpec& block, const BlockWeights& weights, const BlockContext& context,
              ConstMatrix input, Matrix carried);
  void ActivateMlp(const BlockSpec& block, const BlockWeights& weights, ConstMatrix input,
                   Matrix carried);
  // Memory for what the activation reads first: `activated` itself where that is F32, so that it is
  // computed in place.
  Matrix TakePreActivation(Matrix activated, Workspace::Scope& scope);
  void Normalize(const BlockWeights& weights, bool attention, ConstMatrix x, Matrix out);
  void AddNormalized(const BlockSpec& block, const BlockWeights& weights, const LinearSpec& linear,
                     const Tensor& gain, ConstMatrix input, Matrix residual);
  RopeParams RopeFor(const BlockSpec& block, const BatchPlan& plan) const;
  void AddToResidual(const BlockSpec& block, const BlockWeights& weights, Site site,
                     ConstMatrix input, Matrix residual, Matrix pending);
  void RunMixture(const BlockSpec& block, const BlockWeights& weights, ConstMatrix input,
                  Matrix residual);
  void AddSharedExpert(const BlockSpec& block, const BlockWeights& weights, ConstMatrix input,
                       Matrix residual);
  void AddExpert(const BlockSpec& block, const BlockWeights& weights, int64_t expert,
                 const ExpertTokens& tokens, ConstMatrix input, Matrix residual);
  void Apply(const BlockSpec& block, const BlockWeights& weights, const LinearSpec& linear,
             ConstMatrix input, MatMulMode mode, Matrix output);
  void ProjectHeads(const BlockSpec& block, const BlockWeights& weights, ConstMatrix input,
                    Matrix q, Matrix k, Matrix v);

  Backend& backend_;
  Exec& exec_;
  const DecoderSpec& spec_;
  Compute compute_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_BLOCK_FORWARD_H_
