// The GGUF file that quantize writes.
#ifndef QUANTMILL_QUANT_PIPELINE_GGUF_OUTPUT_H_
#define QUANTMILL_QUANT_PIPELINE_GGUF_OUTPUT_H_

#include <map>
#include <optional>
#include <string>

#include "formats/single_file_output.h"
#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/pipeline/gguf_contents.h"
#include "quant/pipeline/plan.h"
#include "quant/pipeline/quantized_output.h"

namespace quantmill {

// Layers of the plan come as rows of blocks (LayerSolution::rows); embedding, head and dense layers
// are encoded or copied at the end. The resolved recipe is in the metadata, as "quantmill.recipe".
class GgufOutput : public QuantizedOutput {
 public:
  // plan.gguf is set. Borrows source and plan. Throws Error(kUsage) when `output` exists and
  // `force` is false, and for what the file has no place for; Error(kBadInput) for a tokenizer that
  // llama.cpp would read otherwise; Error(kEnvironment) when the disk has no room.
  GgufOutput(const ModelSource& source, const QuantizePlan& plan, const std::string& output,
             bool force, int threads);

  uint64_t weight_bytes() const override { return contents_.bytes(); }
  void Write(const std::string& module, const LayerSolution& solution) override;
  void WriteFolding(const BlockSource& block) override;
  void WriteKv(const BlockSpec& block, const KvScales& scales) override;
  void Finish(const std::string& calibration_sha256, const QuantizeReport& report) override;
  void Verify(int threads,
              const std::function<void(int64_t, int64_t, const std::string&)>& progress) override;
  void Commit() override { file_.Commit(); }

 private:
  const QuantizePlan& plan_;
  ThreadPool pool_;
  SingleFileOutput file_;
  GgufContents contents_;
  std::optional<GgufWriter> writer_;
  std::map<std::string, size_t> matrices_;  // of layers, by module
  std::map<size_t, std::string> written_;   // SHA-256 of the rows of layers that were solved
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_GGUF_OUTPUT_H_
