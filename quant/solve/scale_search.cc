#include "quant/solve/scale_search.h"

#include <algorithm>
#include <array>
#include <vector>

namespace quantmill {
namespace {

constexpr int64_t kLargestBlock = 128;

// The largest block that divides the group, or all of one that spans the row.
int64_t BlockOf(const QuantScheme& scheme, int64_t in) {
  const int64_t group = scheme.GroupSizeFor(in);
  int64_t block = std::min(group, kLargestBlock);
  if (group >= in) return block;
  while (group % block != 0) --block;
  return block;
}

// Below 0.5 the clamped weights always cost more (measured on SmolLM2 and the sample model).
constexpr std::array<float, 13> kCoarse = {1.15f, 1.1f, 1.05f, 0.95f, 0.9f,  0.85f, 0.8f,
                                           0.75f, 0.7f, 0.65f, 0.6f,  0.55f, 0.5f};
constexpr std::array<float, 6> kFine = {0.025f, -0.025f, 0.0125f, -0.0125f, 0.00625f, -0.00625f};
// Two and three bits clamp more, and scales are worth more steps.
constexpr std::array<float, 16> kCoarseOfFewBits = {1.15f, 1.05f, 0.95f, 0.9f, 0.85f, 0.8f,
                                                    0.75f, 0.7f,  0.65f, 0.6f, 0.55f, 0.5f,
                                                    0.45f, 0.4f,  0.35f, 0.3f};
constexpr std::array<float, 3> kPowersOfTwo = {0.5f, 2, 0.25f};

GridSearch CandidatesFor(const QuantScheme& scheme, float global_scale) {
  GridSearch search;
  search.global_scale = global_scale;
  if (scheme.scale_dtype == DType::kF8E8M0) {
    search.coarse = kPowersOfTwo;
    return search;
  }
  search.coarse = kCoarse;
  if (scheme.code_type == CodeType::kInt && scheme.bits <= 3) search.coarse = kCoarseOfFewBits;
  search.fine = kFine;
  // Numbers with more on one side of zero than on the other.
  search.mirror = scheme.symmetric &&
                  (scheme.code_type == CodeType::kInt || scheme.code_type == CodeType::kIq4Nl);
  return search;
}

}  // namespace

bool SearchesScales(const QuantScheme& scheme) { return scheme.row_block == 1; }

Tensor GramBlocks(Backend& backend, Exec& exec, ConstMatrix gram, const QuantScheme& scheme) {
  const int64_t in = gram.rows;
  const int64_t block = BlockOf(scheme, in);
  const Tensor host = HostTensor(DType::kF32, in, block);
  for (int64_t begin = 0; begin < in; begin += block) {
    const int64_t count = std::min(block, in - begin);
    const Matrix square = host.view().Rows(begin, count).Cols(0, count);
    backend.Download(exec, gram.Rows(begin, count).Cols(begin, count), square);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t j = 0; j < i; ++j) square.Row<float>(i)[j] = square.Row<float>(j)[i];
      std::fill_n(square.Row<float>(i) + count, block - count, 0.0f);
    }
  }
  Tensor blocks = backend.Empty(DType::kF32, in, block);
  backend.Upload(exec, host, blocks);
  exec.stream.Synchronize();  // `host` is read until then
  return blocks;
}

Tensor ScaledBlocks(Backend& backend, Exec& exec, ConstMatrix gram_blocks,
                    std::span<const float> columns) {
  const int64_t block = gram_blocks.cols;
  const Tensor host = HostTensor(DType::kF32, gram_blocks.rows, block);
  backend.Download(exec, gram_blocks, host);
  for (int64_t i = 0; i < host.rows(); ++i) {
    const int64_t begin = i / block * block;
    const int64_t count = std::min(block, host.rows() - begin);
    const float scale = columns[static_cast<size_t>(i)];
    for (int64_t j = 0; j < count; ++j) {
      host.Row<float>(i)[j] /= scale * columns[static_cast<size_t>(begin + j)];
    }
  }
  Tensor blocks = backend.Empty(DType::kF32, host.rows(), block);
  backend.Upload(exec, host, blocks);
  exec.stream.Synchronize();  // `host` is read until then
  return blocks;
}

Grid SearchScales(Backend& backend, Exec& exec, ConstMatrix weight, ConstMatrix gram_blocks,
                  const QuantScheme& scheme, std::optional<float> global_scale) {
  Grid grid = MinMax(backend, exec, weight, scheme, global_scale);
  if (!SearchesScales(scheme)) return grid;
  backend.SearchGrid(exec, weight, gram_blocks, scheme, CandidatesFor(scheme, grid.global_scale),
                     grid.scales, grid.zero_points);
  return grid;
}

}  // namespace quantmill
