// Several runs of the same tokens through a model, side by side, that differ in some weights: what
// each difference does to the logits, for the price of one pass over the checkpoint.
#ifndef QUANTMILL_QUANT_PIPELINE_PROBE_STREAMS_H_
#define QUANTMILL_QUANT_PIPELINE_PROBE_STREAMS_H_

#include <memory>
#include <vector>

#include "quant/calib/calibration_stream.h"
#include "quant/runtime/block_forward.h"
#include "quant/runtime/kv_cache.h"

namespace quantmill {

// Not copyable. Holds [tokens, hidden] F32 for each stream; a window runs at a time.
class ProbeStreams {
 public:
  // `windows` must outlive it. One stream, number 0, at the embedding.
  ProbeStreams(Backend& backend, Exec& exec, const ModelSource& source, const TokenWindows& windows,
               Compute compute);
  ProbeStreams(const ProbeStreams&) = delete;
  ProbeStreams& operator=(const ProbeStreams&) = delete;

  // A new stream, where stream 0 is now; its number.
  size_t Fork();
  size_t count() const { return residuals_.size(); }

  // Runs one stream through a block.
  void Run(size_t stream, const BlockSpec& block, const BlockWeights& weights);

  // After the last block: mean KL(first || stream) in nats a token, for each stream; 0 for the
  // first itself.
  std::vector<double> Divergences(const ModelSource& source);

 private:
  Backend& backend_;
  Exec& exec_;
  const TokenWindows& windows_;
  Compute compute_;
  BlockForward forward_;
  KvCache cache_;  // one layer, one window
  KvSequence sequence_;
  std::unique_ptr<BatchPlan> plan_;  // of any window
  std::vector<Tensor> residuals_;    // of each stream, [tokens, hidden] F32
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_PROBE_STREAMS_H_
