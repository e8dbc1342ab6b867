// The calibration activations of a whole model, carried from site to site.
#ifndef QUANTMILL_QUANT_CALIB_CALIBRATION_STREAM_H_
#define QUANTMILL_QUANT_CALIB_CALIBRATION_STREAM_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "kernels/ops.h"
#include "quant/calib/activation_rows.h"
#include "quant/model/model_source.h"
#include "quant/runtime/block_forward.h"
#include "quant/runtime/kv_cache.h"

namespace quantmill {

// Token windows, all of one length.
struct TokenWindows {
  int64_t length = 0;
  std::vector<int32_t> ids;  // [count, length], row-major
  int64_t count() const { return length == 0 ? 0 : static_cast<int64_t>(ids.size()) / length; }
  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }
};

struct StreamOptions {
  Compute compute = Compute::kF32;
  DType cache = DType::kF32;    // of keys and values, F32|BF16
  int64_t chunk_tokens = 1024;  // tokens run at a time (at least one window)
  // Keep what one site hands to the next (attention output, activated MLP) for all tokens, so that
  // each linear runs once per token; otherwise the site before is run again, chunk by chunk.
  bool keep_attention = true;
  bool keep_mlp = true;
  // Activations of all tokens lie in host memory, and cross to the backend's chunk by chunk.
  bool activations_in_host_memory = false;
  // These copies run beside the work on other chunks, which takes two chunks' memory.
  bool double_buffered = false;
};

// What a probe of a block sees; each may be empty. Views are valid during the call only.
struct BlockVisitor {
  // The input of each site, [rows, width] of the activation type; of a mixture's kMlpOut: not
  // called, since each expert has its own (CalibrationStream::ActivateExpert).
  std::function<void(Site site, ConstMatrix input)> input;
  KeyValueObserver keys_values;
  // The activations behind the block, [rows, hidden] F32.
  std::function<void(ConstMatrix output)> output;
};

// Advances all calibration tokens through the model, one site at a time:
//     for each block, for each site:  VisitInputs (statistics), solve, Advance (with what was
//     written)
// so each layer sees the real error of the earlier ones. One stream is one sequence of activations;
// a second, full-precision one beside it is a second object on the dense weights.
// Deterministic; independent of where activations lie, bit for bit, and of chunk_tokens and the
// keep options as far as a row's result is of the other rows (ops.h), except that visitors see
// other chunks. Not copyable.
class CalibrationStream {
 public:
  CalibrationStream(Backend& backend, Exec& exec, const ModelSource& source,
                    const TokenWindows& windows, const StreamOptions& options);
  // Waits for what is on the stream: it may read host memory that is freed here.
  ~CalibrationStream() { exec_.stream.Synchronize(); }
  CalibrationStream(const CalibrationStream&) = delete;
  CalibrationStream& operator=(const CalibrationStream&) = delete;

  int64_t tokens() const { return windows_.tokens(); }

  // Calls visit(x) with what the linears of `input` read, [rows, width] of the activation type,
  // chunk by chunk in order. An expert's down reads what it would if every token were the expert's.
  // The view is valid during the call only.
  void VisitInputs(const BlockSpec& block, const BlockWeights& weights, const SharedInput& input,
                   const std::function<void(ConstMatrix x)>& visit);

  // The same for this stream and `full`, another one on the same windows that keeps nothing
  // (StreamOptions), chunk by chunk: visit(first_row, x, full_x). `full` is then advanced past the
  // site, so that each of its linears runs once per token; but not past a mixture's kMlpOut, which
  // has several inputs: Advance does that, after the last of them.
  void VisitBeside(
      CalibrationStream& full, const BlockSpec& block, const BlockWeights& weights,
      const BlockWeights& full_weights, const SharedInput& input,
      const std::function<void(int64_t first_row, ConstMatrix x, ConstMatrix full_x)>& visit);

  // How many tokens a mixture's router sends to each expert, as `weights` has it now.
  std::vector<int64_t> CountRouted(const BlockSpec& block, const BlockWeights& weights);

  // Runs the site's linears, as `weights` has them now, on all tokens.
  void Advance(const BlockSpec& block, const BlockWeights& weights, Site site);

  // Runs the whole block, with any weights, on the current activations without advancing them: to
  // see its sites before any is solved, or what other weights would do. On `windows` windows (1 ..
  // count), spread evenly: the i-th is window i * count / windows. Visits whole windows, in order,
  // some at a time. To be called between blocks.
  void Probe(const BlockSpec& block, const BlockWeights& weights, int64_t windows,
             const BlockVisitor& visitor);
  // BlockForward::ActivateExpert, for the inputs that a probe has seen.
  void ActivateExpert(const BlockSpec& block, const BlockWeights& weights, const SharedInput& mlp,
                      ConstMatrix input, Matrix activated) {
    forward_.ActivateExpert(block, weights, mlp, input, activated);
  }
  int64_t windows() const { return windows_.count(); }
  int64_t window() const { return windows_.length; }  // tokens of each

  // Called with the keys and values of the tokens that Advance runs, each token at least once for
  // every kAttentionIn. Empty: nobody.
  void ObserveKeysValues(KeyValueObserver observer) { observer_ = std::move(observer); }

  // Bytes of the backend's memory that a stream of this shape holds between calls (activations, one
  // chunk's keys and values), and takes from the workspace during one; and bytes of host memory
  // that it holds where activations lie there.
  static int64_t HeldBytes(const DecoderSpec& spec, int64_t tokens, int64_t window,
                           const StreamOptions& options);
  static int64_t ScratchBytes(const DecoderSpec& spec, int64_t window,
                              const StreamOptions& options);
  static int64_t HostBytes(const DecoderSpec& spec, int64_t tokens, const StreamOptions& options);

 private:
  struct Chunk {
    int64_t first_row;
    int64_t rows;
    BatchPlan* plan;
  };

  BlockContext ContextOf(const Chunk& chunk) {
    return {*chunk.plan, 0, cache_.store(), observer_ ? &observer_ : nullptr};
  }
  bool Keeps(Site producer) const;
  // Memory for what `producer` carries, to be written: all tokens' if kept, else scratch for the
  // chunk.
  Matrix FreshCarried(const BlockSpec& block, Site producer, const Chunk& chunk,
                      Workspace::Scope& scope);
  Matrix ResidualOf(const Chunk& chunk, Workspace::Scope& scope) {
    return residual_.Read(chunk.first_row, chunk.rows, scope);
  }
  void ProbeChunk(const BlockSpec& block, const BlockWeights& weights, const BatchPlan& plan,
                  std::span<const int32_t> rows, const BlockVisitor& visitor);
  // Of one chunk, whose ResidualOf is `residual`:
  // Runs the site's linears, and keeps what they give.
  void AdvanceChunk(const BlockSpec& block, const BlockWeights& weights, Site site,
                    const Chunk& chunk, ConstMatrix input, Matrix residual,
                    Workspace::Scope& scope);
  // What the linears of `input` read.
  ConstMatrix Visited(const BlockSpec& block, const BlockWeights& weights, const SharedInput& input,
                      const Chunk& chunk, Matrix residual, Workspace::Scope& scope);
  // The site's input; runs the producer again where its output was not kept.
  ConstMatrix ChunkInput(const BlockSpec& block, const BlockWeights& weights, Site site,
                         const Chunk& chunk, Matrix residual, Workspace::Scope& scope);

  Backend& backend_;
  Exec& exec_;
  const DecoderSpec& spec_;
  const TokenWindows& windows_;
  StreamOptions options_;
  BlockForward forward_;
  KvCache cache_;  // one layer, one chunk of windows
  std::vector<KvSequence> sequences_;
  std::vector<SequenceStep> steps_;       // of a full chunk
  std::unique_ptr<BatchPlan> full_plan_;  // of all chunks but perhaps the last
  std::unique_ptr<BatchPlan> last_plan_;
  std::vector<Chunk> chunks_;
  ActivationRows residual_;  // [tokens, hidden] F32
  ActivationRows pending_;   // see BlockForward; [tokens, PendingWidth] F32
  ActivationRows carried_;   // what the current producer hands on, for all tokens, if kept
  KeyValueObserver observer_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_CALIB_CALIBRATION_STREAM_H_
