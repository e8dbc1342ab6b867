// The scales that AWQ or SmoothQuant folds into one block.
#ifndef QUANTMILL_QUANT_PIPELINE_FOLD_BLOCK_H_
#define QUANTMILL_QUANT_PIPELINE_FOLD_BLOCK_H_

#include <cstdint>
#include <vector>

#include "kernels/ops.h"
#include "quant/calib/calibration_stream.h"
#include "quant/model/folding.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/plan.h"
#include "quant/report/results.h"

namespace quantmill {

// Tokens that statistics are taken from: enough for scales, which are one number a channel.
inline constexpr int64_t kFoldingStatisticsTokens = 16384;

// Chooses by plan.recipe.transform, before any layer of `block` is solved; the stream stands before
// the block and stays there. Candidates are scored on statistics of the dense block, then the best
// of each site is tried on the block's output with rounded layers and kept only where that is
// closer to the dense block's than without it. Sites of which a layer (or what produces their
// input) stays dense are left alone, and those that are not foldable (folding.h). Events:
// "outlier_channels", "folding_kept_identity".
BlockFolding ChooseFolding(Backend& backend, Exec& exec, const ModelSource& source,
                           const BlockSpec& block, CalibrationStream& stream,
                           const QuantizePlan& plan, std::vector<Event>& events);

// Memory that ChooseFolding takes beside the stream's: of the backend's, the dense block and its
// statistics; of the host's, outputs, and what the searches see of weights and inputs.
struct FoldingMemory {
  int64_t backend = 0;
  int64_t host = 0;
};
FoldingMemory FoldingBytes(const DecoderSpec& spec, const QuantizePlan& plan);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_FOLD_BLOCK_H_
