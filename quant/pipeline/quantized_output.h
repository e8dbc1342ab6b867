// Where quantize puts what it made: a folder (artifact_output.h) or one GGUF file (gguf_output.h).
#ifndef QUANTMILL_QUANT_PIPELINE_QUANTIZED_OUTPUT_H_
#define QUANTMILL_QUANT_PIPELINE_QUANTIZED_OUTPUT_H_

#include <cstdint>
#include <functional>
#include <string>

#include "formats/artifact.h"
#include "quant/model/block_source.h"
#include "quant/pipeline/site_solver.h"
#include "quant/report/results.h"

namespace quantmill {

// Usage: construct; Write every module of the plan; Finish; Verify; Commit. Nothing appears under
// the final name before Commit, and nothing is left when it is not reached.
class QuantizedOutput {
 public:
  virtual ~QuantizedOutput() = default;

  virtual uint64_t weight_bytes() const = 0;
  virtual void Write(const std::string& module, const LayerSolution& solution) = 0;
  // Records the folding of a block and writes the norm gains and biases that it changed. Before
  // Finish, once a block; not needed for an identity.
  virtual void WriteFolding(const BlockSource& block) = 0;
  // The scales of one block's keys and values. For every block, if the recipe has a KV scheme.
  virtual void WriteKv(const BlockSpec& block, const KvScales& scales) = 0;
  // Writes what was not quantized, and the record of how it was made.
  virtual void Finish(const std::string& calibration_sha256, const QuantizeReport& report) = 0;
  // Re-opens what was written and checks all of it. progress: calls (done, total, layer). Throws
  // Error(kVerification).
  virtual void Verify(
      int threads, const std::function<void(int64_t, int64_t, const std::string&)>& progress) = 0;
  virtual void Commit() = 0;
};

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_PIPELINE_QUANTIZED_OUTPUT_H_
