// What a run keeps of each block beyond the solved layers, and how it knows them for its own.
#ifndef QUANTMILL_QUANT_PIPELINE_RESUME_H_
#define QUANTMILL_QUANT_PIPELINE_RESUME_H_

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "formats/artifact.h"
#include "quant/model/folding.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/plan.h"
#include "quant/report/results.h"

namespace quantmill {

// Whatever the bytes of the output depend on: the model's files (sizes and times of change), the
// recipe, the calibration tokens, this program and the kernels it uses. Equal ones give equal
// bytes.
nlohmann::json RunIdentity(const ModelSource& source, const QuantizePlan& plan,
                           const std::string& backend_isa, const std::string& calibration_sha256);

// How much of a report there is.
struct ReportMark {
  size_t layers = 0;
  size_t mixtures = 0;
  size_t events = 0;
};
ReportMark MarkOf(const QuantizeReport& report);

// One block: what the report says of it, its folding, the scales of its cache.
struct BlockRecord {
  BlockFolding folding;
  std::optional<KvScales> kv;
};
// With the part of `report` behind `before`.
nlohmann::json RecordJson(const QuantizeReport& report, const ReportMark& before,
                          const BlockRecord& record);
// The inverse; appends to `report`. Throws Error(kBadInput, where) for JSON that is no record of
// `block`.
BlockRecord ReadRecord(const nlohmann::json& json, const DecoderSpec& spec, const BlockSpec& block,
                       const std::string& where, QuantizeReport& report);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_RESUME_H_
