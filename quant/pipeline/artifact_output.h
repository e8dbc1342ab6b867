// The folder that quantize writes: weights, configuration, side files, manifest.
#ifndef QUANTMILL_QUANT_PIPELINE_ARTIFACT_OUTPUT_H_
#define QUANTMILL_QUANT_PIPELINE_ARTIFACT_OUTPUT_H_

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "formats/artifact.h"
#include "formats/checkpoint_writer.h"
#include "formats/output_folder.h"
#include "quant/model/block_source.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/plan.h"
#include "quant/report/results.h"

namespace quantmill {

// Throws Error(kUsage) where `output` is the folder of `source`, holds it, or lies in it: replacing
// the input, or a folder around it, would destroy it.
void CheckOutputPath(const ModelSource& source, const std::string& output);

// Usage: construct; Write every module of the plan; Finish; (verify path()); Commit. Nothing
// appears under the final name before Commit, and nothing is left when it is not reached.
class ArtifactOutput {
 public:
  // Throws Error(kUsage) when `output` exists and `force` is false, Error(kEnvironment) when the
  // disk has no room for it.
  ArtifactOutput(const ModelSource& source, const QuantizePlan& plan, const std::string& output,
                 bool force);

  const std::filesystem::path& path() const { return folder_.path(); }
  uint64_t weight_bytes() const { return writer_.total_bytes(); }

  void Write(const std::string& module, const QuantizedLinear& linear);
  // Writes the block's folded norm gains and biases, and records the folding. Before Finish, once a
  // block; not needed for an identity.
  void WriteFolding(const BlockSource& block);
  // The scales of one block's keys and values. For every block, if the recipe has a KV scheme.
  void WriteKv(const BlockSpec& block, const KvScales& scales);

  // Copies what was not quantized byte for byte, writes config.json, the side files,
  // recipe.yaml (the resolved recipe) and quantmill.json (inputs' and files' SHA-256, resolved
  // recipe, calibration tokens' SHA-256, errors by layer, events; no times or paths, so that equal
  // runs give equal bytes).
  void Finish(const std::string& calibration_sha256, const QuantizeReport& report);
  void Commit() { folder_.Commit(); }

 private:
  std::vector<TensorDeclaration> Declarations();
  void CopyDenseTensors();
  void WriteConfig();
  void WriteSideFiles();
  void WriteManifest(const std::string& calibration_sha256, const QuantizeReport& report);

  const ModelSource& source_;
  const QuantizePlan& plan_;
  const ArtifactWriterFormat& format_;
  OutputFolder folder_;
  std::vector<std::string> copied_tensors_;
  std::set<std::string> folded_tensors_;               // of copied_tensors_: written already
  nlohmann::json folding_ = nlohmann::json::object();  // by BlockSpec::prefix
  CheckpointWriter writer_;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_ARTIFACT_OUTPUT_H_
