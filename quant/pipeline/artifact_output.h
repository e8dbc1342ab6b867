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
#include "quant/pipeline/quantized_output.h"
#include "quant/report/results.h"

namespace quantmill {

// Throws Error(kUsage) where `output` is the folder of `source`, holds it, or lies in it: replacing
// the input, or a folder around it, would destroy it.
void CheckOutputPath(const ModelSource& source, const std::string& output);

class ArtifactOutput : public QuantizedOutput {
 public:
  // Throws Error(kUsage) when `output` exists and `force` is false, Error(kEnvironment) when the
  // disk has no room for it.
  ArtifactOutput(const ModelSource& source, const QuantizePlan& plan, const std::string& output,
                 bool force);

  const std::filesystem::path& path() const { return folder_.path(); }
  uint64_t weight_bytes() const override { return writer_.total_bytes(); }

  void Write(const std::string& module, const LayerSolution& solution) override;
  void WriteFolding(const BlockSource& block) override;
  void WriteKv(const BlockSpec& block, const KvScales& scales) override;

  // Copies what was not quantized byte for byte, writes config.json, the side files,
  // recipe.yaml (the resolved recipe) and quantmill.json (inputs' and files' SHA-256, resolved
  // recipe, what a budget came to, calibration tokens' SHA-256, errors by layer, events; no times
  // or paths, so that equal runs give equal bytes).
  void Finish(const std::string& calibration_sha256, const QuantizeReport& report) override;
  void Verify(int threads,
              const std::function<void(int64_t, int64_t, const std::string&)>& progress) override;
  void Commit() override { folder_.Commit(); }

 private:
  std::vector<TensorDeclaration> Declarations();
  void CheckCopiedTensors() const;
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
