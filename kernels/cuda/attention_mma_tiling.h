// How attention on tensor cores (attention_mma_kernel.h) cuts its work: a pure function of head_dim
// and architecture.
#ifndef QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_TILING_H_
#define QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_TILING_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace quantmill::QUANTMILL_CUDA {

// A block has `warps` warps, each with row_tiles times 16 rows, and visits keys in tiles of `keys`.
struct MmaTiling {
  int dims = 0;  // head_dim, padded
  int row_tiles = 0;
  int keys = 0;
  int warps = 0;

  constexpr int rows() const { return 16 * row_tiles * warps; }
  constexpr int threads() const { return 32 * warps; }
  // Queries, two tiles of keys and two of values, and a flag a warp.
  constexpr size_t shared_bytes() const {
    return static_cast<size_t>(rows() + 4 * keys) * static_cast<size_t>(dims) * 2 + 16;
  }
  friend constexpr bool operator==(const MmaTiling&, const MmaTiling&) = default;
};

// The padded lengths of a head that there are kernels for.
inline constexpr std::array<int, 4> kMmaDims = {64, 96, 128, 256};
// The architectures with choices of their own; others are served as the least of them.
inline constexpr std::array<int, 5> kMmaCapabilities = {80, 86, 89, 90, 100};

// Shared memory of one multiprocessor. Each block takes 1 KiB more than it asks for, and one alone
// may have all but that (CUDA C++ Programming Guide, technical specifications per compute
// capability).
constexpr size_t SharedMemoryOfSm(int capability) {
  switch (capability) {
    case 80:
    case 87:
      return size_t{164} << 10;
    case 90:
    case 100:
    case 103:
      return size_t{228} << 10;
    default:
      return size_t{100} << 10;  // 86, 89, 120
  }
}

constexpr bool TwoBlocksFit(const MmaTiling& tiling, int capability) {
  constexpr size_t kOfSystem = 1024;
  // Outputs and scores of a thread, of the 255 registers that two blocks of 128 threads may have.
  constexpr int kMostAccumulators = 192;
  const int accumulators = tiling.row_tiles * (tiling.dims + tiling.keys) / 2;
  return 2 * (tiling.shared_bytes() + kOfSystem) <= SharedMemoryOfSm(capability) &&
         accumulators <= kMostAccumulators;
}

// The first of these that leaves room for two blocks on a multiprocessor, so that one computes
// while the other waits: 32 rows a warp read each key and value half as often as 16; long tiles
// rescale less often. Nothing where there is no such kernel: keys and values are copied in 16
// bytes, and a head of more than 256 elements has more outputs than registers.
//
// few_rows: the tiling of decode, one tile of 16 rows. Its tiles of keys are the same, so that a
// row has the same bits.
constexpr std::optional<MmaTiling> ChooseMmaTiling(int head_dim, int capability, bool few_rows) {
  if (head_dim <= 0 || head_dim % 8 != 0 || head_dim > kMmaDims.back()) return std::nullopt;
  constexpr int kWarps = 4;
  MmaTiling tiling;
  for (auto dims = kMmaDims.rbegin(); dims != kMmaDims.rend() && *dims >= head_dim; ++dims) {
    tiling.dims = *dims;
  }
  for (const auto& [row_tiles, keys] : {std::array{2, 64}, {1, 64}, {2, 32}, {1, 32}}) {
    tiling = {tiling.dims, row_tiles, keys, kWarps};
    if (TwoBlocksFit(tiling, capability)) break;
  }
  if (few_rows) tiling = {tiling.dims, 1, tiling.keys, 1};
  return tiling;
}

// Whether some architecture chooses it: only then is its kernel compiled.
constexpr bool IsMmaTilingChosen(const MmaTiling& tiling) {
  for (const int capability : kMmaCapabilities) {
    for (const bool few_rows : {false, true}) {
      if (ChooseMmaTiling(tiling.dims, capability, few_rows) == tiling) return true;
    }
  }
  return false;
}

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_TILING_H_
