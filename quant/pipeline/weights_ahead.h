// The weights that the solvers of a block take, each loaded while the one before is solved.
#ifndef QUANTMILL_QUANT_PIPELINE_WEIGHTS_AHEAD_H_
#define QUANTMILL_QUANT_PIPELINE_WEIGHTS_AHEAD_H_

#include <deque>
#include <future>
#include <utility>

#include "kernels/ops.h"
#include "quant/model/block_source.h"
#include "quant/runtime/background_loader.h"
#include "quant/runtime/block_weights.h"

namespace quantmill {

class WeightsAhead {
 public:
  // Borrows all; begins with the first. linears: of the block, in the order in which Take is called
  // for them.
  WeightsAhead(Backend& backend, BackgroundLoader& loader, const BlockSource& source,
               std::deque<const LinearSpec*> linears)
      : backend_(backend), loader_(loader), source_(source), linears_(std::move(linears)) {
    LoadFirst();
  }
  WeightsAhead(const WeightsAhead&) = delete;
  WeightsAhead& operator=(const WeightsAhead&) = delete;

  // LoadFloatWeight of the linear; begins with the next one.
  Tensor Take(const LinearSpec& linear) {
    Check(!linears_.empty() && linears_.front() == &linear, "WeightsAhead: in another order");
    Tensor weight = first_.get();
    linears_.pop_front();
    LoadFirst();
    return weight;
  }

 private:
  void LoadFirst() {
    if (linears_.empty()) return;
    first_ = loader_.Start([this, linear = linears_.front()](Exec& exec) {
      return LoadFloatWeight(backend_, exec, source_, *linear);
    });
  }

  Backend& backend_;
  BackgroundLoader& loader_;
  const BlockSource& source_;
  std::deque<const LinearSpec*> linears_;  // that are to be taken
  std::future<Tensor> first_;              // of these
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_WEIGHTS_AHEAD_H_
