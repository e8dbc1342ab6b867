#include "quant/pipeline/importance.h"

#include <algorithm>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "quant/calib/site_statistics.h"
#include "quant/model/config_reader.h"
#include "quant/model/gguf_layout.h"
#include "quant/runtime/block_weights.h"
#include "quant/runtime/kv_precision.h"

namespace quantmill {
namespace {

// In a GGUF file, by the name of the layer.
std::map<std::string, GgufMatrix> MatricesOf(const ModelSource& source) {
  const ConfigReader config(source.checkpoint().config(),
                            (source.checkpoint().folder() / "config.json").string());
  std::map<std::string, GgufMatrix> matrices;
  for (GgufMatrix& matrix : DescribeGguf(source.spec(), config).matrices) {
    if (matrix.layer >= 0) matrices[matrix.linear.name] = std::move(matrix);
  }
  return matrices;
}

// Experts share an entry. sums: of squares, over `count` inputs.
void Put(const GgufMatrix& matrix, std::span<const float> sums, int64_t count,
         ImportanceMatrix& importance) {
  ImportanceEntry& entry = importance.entries[matrix.name];
  const auto stacked = static_cast<size_t>(std::max<int64_t>(1, matrix.experts));
  entry.sums.resize(stacked * sums.size());
  entry.counts.resize(stacked);
  std::ranges::copy(sums, entry.sums.begin() + matrix.expert * std::ssize(sums));
  entry.counts[static_cast<size_t>(matrix.expert)] = static_cast<float>(count);
}

}  // namespace

int64_t CountImportanceEntries(const ModelSource& source) {
  int64_t entries = 0;
  for (const auto& [name, matrix] : MatricesOf(source)) entries += matrix.expert == 0 ? 1 : 0;
  return entries;
}

ImportanceMatrix MeasureImportance(
    Backend& backend, Exec& exec, const ModelSource& source, const TokenWindows& windows,
    Compute compute, const std::function<void(int64_t, int64_t, const std::string&)>& progress) {
  if (source.artifact() != nullptr) {
    throw Error(ErrorCode::kBadInput, source.path(),
                "is quantized already; importance is measured on the dense original");
  }
  const std::map<std::string, GgufMatrix> matrices = MatricesOf(source);
  ImportanceMatrix importance;
  importance.chunk_count = static_cast<uint32_t>(windows.count());
  importance.chunk_size = static_cast<uint32_t>(windows.length);
  StreamOptions options;
  options.compute = compute;
  options.cache = FastCacheType(backend.Info(), compute);
  CalibrationStream stream(backend, exec, source, windows, options);
  const std::vector<BlockSpec>& blocks = source.spec().blocks;
  const auto total = static_cast<int64_t>(blocks.size() * kSites.size());
  int64_t done = 0;
  for (const BlockSpec& block : blocks) {
    const BlockWeights weights =
        LoadBlock(backend, exec, BlockSource(source, block, BlockFolding()), compute);
    for (const Site site : kSites) {
      progress(done++, total, block.prefix + ": " + NameOf(site));
      for (const SharedInput& input : block.SharedInputs()) {
        if (input.site != site) continue;
        const SiteStatistics statistics =
            GatherStatistics(backend, exec, stream, nullptr, block, weights, nullptr, input, false,
                             [](const std::function<void()>& work) { work(); });
        const std::vector<float> sums = DiagonalOf(backend, exec, statistics.gram);
        for (const LinearSpec* linear : block.LinearsAt(input)) {
          Put(matrices.at(linear->name), sums, windows.tokens(), importance);
        }
      }
      stream.Advance(block, weights, site);
    }
  }
  return importance;
}

}  // namespace quantmill
