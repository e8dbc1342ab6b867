#include "quant/pipeline/importance.h"

#include <map>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "quant/calib/site_statistics.h"
#include "quant/model/config_reader.h"
#include "quant/model/gguf_layout.h"
#include "quant/runtime/block_weights.h"

namespace quantmill {
namespace {

// Name in a GGUF file by the name of the layer.
std::map<std::string, std::string> TensorNames(const ModelSource& source) {
  const ConfigReader config(source.checkpoint().config(),
                            (source.checkpoint().folder() / "config.json").string());
  std::map<std::string, std::string> names;
  for (const GgufMatrix& matrix : DescribeGguf(source.spec(), config).matrices) {
    if (matrix.layer >= 0) names[matrix.linear.name] = matrix.name;
  }
  return names;
}

}  // namespace

ImportanceMatrix MeasureImportance(
    Backend& backend, Exec& exec, const ModelSource& source, const TokenWindows& windows,
    Compute compute, const std::function<void(int64_t, int64_t, const std::string&)>& progress) {
  if (source.artifact() != nullptr) {
    throw Error(ErrorCode::kBadInput, source.path(),
                "is quantized already; importance is measured on the dense original");
  }
  const std::map<std::string, std::string> names = TensorNames(source);
  ImportanceMatrix matrix;
  matrix.chunk_count = static_cast<uint32_t>(windows.count());
  matrix.chunk_size = static_cast<uint32_t>(windows.length);
  StreamOptions options;
  options.compute = compute;
  CalibrationStream stream(backend, exec, source, windows, options);
  const std::vector<BlockSpec>& blocks = source.spec().blocks;
  const auto total = static_cast<int64_t>(blocks.size() * kSites.size());
  int64_t done = 0;
  for (const BlockSpec& block : blocks) {
    const BlockWeights weights =
        LoadBlock(backend, exec, BlockSource(source, block, BlockFolding()), compute);
    for (const Site site : kSites) {
      progress(done++, total, block.prefix + ": " + NameOf(site));
      const SiteStatistics statistics =
          GatherStatistics(backend, exec, stream, nullptr, block, weights, nullptr, site, false,
                           [](const std::function<void()>& work) { work(); });
      const std::vector<float> sums = DiagonalOf(backend, exec, statistics.gram);
      for (const LinearSpec* linear : block.LinearsAt(site)) {
        matrix.entries[names.at(linear->name)] = {sums, {static_cast<float>(windows.tokens())}};
      }
      stream.Advance(block, weights, site);
    }
  }
  return matrix;
}

}  // namespace quantmill
