// An artifact's dense tensors and side files against those of the checkpoint it was made from.
#ifndef QUANTMILL_QUANT_VERIFY_FILE_COMPARISON_H_
#define QUANTMILL_QUANT_VERIFY_FILE_COMPARISON_H_

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "formats/artifact.h"
#include "kernels/core/thread_pool.h"
#include "quant/model/decoder_spec.h"
#include "quant/report/results.h"
#include "quant/verify/folded_reference.h"
#include "quant/verify/record.h"

namespace quantmill {

// A tensor of an artifact, spelled as Error::where spells it, missing ones too.
std::string TensorPlace(const Checkpoint& checkpoint, const std::string& tensor);

// Tensors that hold quantized weights, or the scales of the cache of `spec`'s blocks: a reference
// has none of them, or others of the same name.
std::set<std::string> QuantizedTensors(const ArtifactReader& reader, const DecoderSpec& spec);

// The artifact has the reference's tensors, each dense or in the parts its format stores.
// quantized: QuantizedTensors of the artifact.
std::vector<Problem> CompareTensorNames(const Checkpoint& artifact, const ArtifactReader& reader,
                                        const std::set<std::string>& quantized,
                                        const DecoderSpec& spec, const Checkpoint& reference);

// What was not quantized is the reference's, bit for bit, or the reference's folded.
std::vector<Problem> CompareDenseTensors(const Checkpoint& artifact,
                                         const std::set<std::string>& quantized,
                                         const Checkpoint& reference,
                                         const std::optional<FoldedReference>& folded,
                                         ThreadPool& pool);

// One tensor of a GGUF file, as it is decoded, and the reference's of the same name.
struct DecodedComparison {
  std::string problem;  // another shape; for a vector, other values
  // |dW|^2 / |W|^2 of a matrix.
  std::optional<double> weight_error;
};
// Throws Error(kBadInput) where a value is not finite.
DecodedComparison CompareDecodedTensor(const Checkpoint& file, const Checkpoint& reference,
                                       const std::string& name);

// Matrices of a GGUF file in blocks that no scheme says (Q4_K and so on), with their types.
// quantized: QuantizedTensors of the file, which are not among them.
std::vector<VerifiedLayer> LayersOfBlocks(const Checkpoint& file,
                                          const std::set<std::string>& quantized);

// Files that quantize wrote or copied are what they were then, and the copies are the reference's.
// reference: null for none.
std::vector<Problem> CompareSideFiles(const Checkpoint& artifact, const ArtifactRecord& record,
                                      const Checkpoint* reference);

// quantize adds one key to the reference's configuration and touches no other.
std::vector<Problem> CompareConfig(const Checkpoint& artifact, const Checkpoint& reference);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_VERIFY_FILE_COMPARISON_H_
