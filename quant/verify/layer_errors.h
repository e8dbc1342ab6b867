// What the quantized layers of an artifact have lost of the weights that they were made from.
#ifndef QUANTMILL_QUANT_VERIFY_LAYER_ERRORS_H_
#define QUANTMILL_QUANT_VERIFY_LAYER_ERRORS_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "formats/artifact.h"
#include "kernels/core/error.h"
#include "kernels/core/thread_pool.h"
#include "quant/model/model_source.h"
#include "quant/verify/folded_reference.h"

namespace quantmill {

// A linear of the model that the file stores quantized.
struct StoredLayer {
  std::string name;
  QuantScheme scheme;
  QuantizedModule module;
  std::optional<std::string> reference_weight;  // its dense tensor, if there is one of its shape
  bool transposed = false;                      // that tensor
};

// Borrowed.
struct LayerFiles {
  const Checkpoint& checkpoint;
  const ArtifactReader& reader;   // of that checkpoint
  const ModelSource* reference;   // null: none
  const FoldedReference* folded;  // what quantize made of the reference; null: it as it is
};

struct LayerError {
  std::optional<double> weight_error;  // WeightError against the reference; empty without one
  std::optional<Error> unreadable;     // why the layer, or the reference's, cannot be decoded
};

// The first layers (one at least) that are decoded together: as many as take little memory, so that
// small layers fill the threads and large ones do not fill the machine.
std::span<const StoredLayer> FirstBatch(std::span<const StoredLayer> layers);

// One for each layer. Every layer is decoded, with or without a reference; pages of both files that
// were read are released. Deterministic; independent of the number of threads.
std::vector<LayerError> MeasureErrors(const LayerFiles& files, std::span<const StoredLayer> layers,
                                      ThreadPool& pool);

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_VERIFY_LAYER_ERRORS_H_
