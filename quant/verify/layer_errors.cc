#include "quant/verify/layer_errors.h"

#include <algorithm>

#include "quant/verify/weight_error.h"

namespace quantmill {
namespace {

constexpr int64_t kBatchBytes = int64_t{32} << 20;

// Codes and the touched pages of both files.
int64_t BytesOf(const StoredLayer& layer) {
  return layer.module.out * layer.module.in * (layer.reference_weight ? 6 : 3);
}

// A layer while its batch is worked on.
struct DecodedLayer {
  std::optional<QuantizedLinear> linear;
  Tensor made;  // the reference's weight, where it is not as stored: folded, or transposed
  ConstMatrix dense;
  std::vector<RowSquares> rows;  // empty when the layer cannot be compared
  std::optional<Error> error;    // why `linear` is empty
};

void Decode(const LayerFiles& files, const StoredLayer& layer, DecodedLayer& decoded) {
  try {
    decoded.linear = files.reader.Read(layer.name);
    for (const std::string& part : files.reader.TensorsOf(layer.name)) {
      if (files.checkpoint.Has(part)) files.checkpoint.Release(part);
    }
    if (!layer.reference_weight) return;
    const ConstMatrix stored = files.reference->checkpoint().View(*layer.reference_weight);
    if (files.folded != nullptr) decoded.made = files.folded->Weight(layer.name);
    if (decoded.made.empty() && layer.transposed) decoded.made = Transposed(stored);
    decoded.dense = decoded.made.empty() ? stored : ConstMatrix(decoded.made);
    decoded.rows.resize(static_cast<size_t>(layer.module.out));
  } catch (const Error& error) {
    decoded.error = error;
  }
}

// Fills the rows of all layers, blocks of them in parallel.
void SquaresOfLayers(std::span<DecodedLayer> layers, ThreadPool& pool) {
  struct RowBlock {
    DecodedLayer* layer;
    int64_t begin;
  };
  std::vector<RowBlock> blocks;
  for (DecodedLayer& layer : layers) {
    for (int64_t row = 0; row < std::ssize(layer.rows); row += kRowsPerTask) {
      blocks.push_back({&layer, row});
    }
  }
  pool.ParallelFor(std::ssize(blocks), [&](int64_t i, int) {
    const auto& [layer, row] = blocks[static_cast<size_t>(i)];
    const int64_t count = std::min(kRowsPerTask, std::ssize(layer->rows) - row);
    SquaresOfRows(
        *layer->linear, layer->dense, row,
        std::span(layer->rows).subspan(static_cast<size_t>(row), static_cast<size_t>(count)));
  });
}

}  // namespace

std::span<const StoredLayer> FirstBatch(std::span<const StoredLayer> layers) {
  size_t count = 0;
  int64_t bytes = 0;
  while (count < layers.size() && (count == 0 || bytes + BytesOf(layers[count]) <= kBatchBytes)) {
    bytes += BytesOf(layers[count++]);
  }
  return layers.first(count);
}

std::vector<LayerError> MeasureErrors(const LayerFiles& files, std::span<const StoredLayer> layers,
                                      ThreadPool& pool) {
  std::vector<DecodedLayer> decoded(layers.size());
  pool.ParallelFor(std::ssize(layers), [&](int64_t i, int) {
    Decode(files, layers[static_cast<size_t>(i)], decoded[static_cast<size_t>(i)]);
  });
  SquaresOfLayers(decoded, pool);
  std::vector<LayerError> errors(layers.size());
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!decoded[i].rows.empty()) errors[i].weight_error = RelativeError(decoded[i].rows);
    errors[i].unreadable = std::move(decoded[i].error);
    const std::optional<std::string>& weight = layers[i].reference_weight;
    if (weight) files.reference->checkpoint().Release(*weight);
  }
  return errors;
}

}  // namespace quantmill
