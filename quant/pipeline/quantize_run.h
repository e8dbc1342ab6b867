// The steps of a quantization: one block at a time, site by site.
#ifndef QUANTMILL_QUANT_PIPELINE_QUANTIZE_RUN_H_
#define QUANTMILL_QUANT_PIPELINE_QUANTIZE_RUN_H_

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/core/thread_pool.h"
#include "quant/calib/site_statistics.h"
#include "quant/calib/token_stream.h"
#include "quant/pipeline/quantize.h"
#include "quant/pipeline/quantized_output.h"
#include "quant/pipeline/resume.h"
#include "quant/pipeline/savepoints.h"
#include "quant/pipeline/site_solver.h"

namespace quantmill {

// Borrows everything; `output` may be null: nothing is written then (a sample of a run).
// `savepoints` may be null; otherwise calibrated blocks that are finished there are taken from
// there, and the others put there. Fills layers, events, seconds and calibration tokens of
// `report`. Throws Error. Not thread-safe.
class QuantizeRun {
 public:
  QuantizeRun(Backend& backend, Exec& exec, const ModelSource& source, const QuantizePlan& plan,
              const QuantizeCallbacks& callbacks, QuantizedOutput* output, Savepoints* savepoints,
              QuantizeReport& report)
      : backend_(backend),
        exec_(exec),
        source_(source),
        plan_(plan),
        callbacks_(callbacks),
        output_(output),
        savepoints_(savepoints),
        report_(report),
        pool_(backend.Info().threads) {}

  // Rounds the first `blocks` blocks without calibration; all of them: lm_head too, if the plan has
  // it.
  void RoundBlocks(size_t blocks);
  // The same with calibration. Returns the hash of the calibration tokens.
  std::string CalibrateAndSolve(size_t blocks);

 private:
  struct Streams;
  struct BlockInWork;

  void RoundLayer(const LinearSpec& linear);
  TokenWindows ReadCalibration();
  // Chooses the block's folding first.
  BlockInWork OpenBlock(size_t index, Streams& streams);
  void QuantizeBlock(size_t index, Streams& streams, BlockRecord& record);
  // With the scales of the block's keys and values.
  void QuantizeBlockAndCache(size_t index, Streams& streams, BlockRecord& record);
  // The same, kept for a later run.
  void QuantizeAndSave(size_t index, Streams& streams);
  // What an earlier run made of the block: written again, and the streams sent through it.
  void ReplayBlock(size_t index, Streams& streams);
  BlockWeights ReplayedWeights(const SavedBlock& saved, const BlockSource& block);
  // Solves the linears that read `input`.
  void QuantizeInput(const SharedInput& input, Streams& streams, BlockInWork& block);
  void QuantizeSite(Site site, Streams& streams, BlockInWork& block);
  // The full-precision stream is done with the block: the next one's weights take its place.
  void LoadNextFull(Streams& streams, BlockInWork& block);
  SiteStatistics Gather(const SharedInput& input, Streams& streams, const BlockInWork& block);
  SiteSolver MakeSolver(const SharedInput& input, SiteStatistics statistics, Streams& streams,
                        const BlockInWork& block);
  bool HasStoredInputScales(const BlockSpec& block, const SharedInput& input) const;
  // How the calibration text uses the experts of a mixture.
  void ReportCoverage(Streams& streams, const BlockInWork& block);
  void SolveLayer(const LinearSpec& linear, SiteSolver& solver, BlockInWork& block);
  // What was written, for the forward.
  std::unique_ptr<PackedLinear> PackSolution(const LinearSpec& linear,
                                             const LayerSolution& solution);
  // The linears of a block that are solved, in that order.
  std::deque<const LinearSpec*> SolvedLinears(const BlockSpec& block) const;
  void Record(const LinearSpec& linear, ConstMatrix dense, const LayerSolution& solution);
  void AddEvent(Event event) { report_.events.push_back(std::move(event)); }
  void AddEvents(const std::vector<SolveEvent>& events, const std::string& where);
  void Progress(int64_t done, int64_t total, const std::string& layer);

  Backend& backend_;
  Exec& exec_;
  const ModelSource& source_;
  const QuantizePlan& plan_;
  const QuantizeCallbacks& callbacks_;
  QuantizedOutput* output_;
  Savepoints* savepoints_;
  QuantizeReport& report_;
  ThreadPool pool_;  // for what the host does between ops
  double tokens_per_second_ = 0;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_QUANTIZE_RUN_H_
