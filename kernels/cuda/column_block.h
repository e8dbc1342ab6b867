// A block of 128 columns that are settled one after the other, each moving those behind it: the
// inner loop of GptqSolve and RefineCodes.
//
// Eight lanes share a row, so a warp has four rows and a block of threads 32. Lane l of a row keeps
// its columns l, l + 8, ... in registers; the square that couples the columns lies in shared
// memory, where the rows of a warp read the same eight neighbours. Eight lanes, because settling a
// column (a division, two roundings) is done by each lane of the row again and is worth about eight
// columns' updates; more lanes would repeat it more often, fewer would leave too few warps. Bound
// by the latency of 128 settled columns, each of which needs the one before.
#ifndef QUANTMILL_KERNELS_CUDA_COLUMN_BLOCK_H_
#define QUANTMILL_KERNELS_CUDA_COLUMN_BLOCK_H_

#include <algorithm>
#include <cstdint>

#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/unroll.h"

namespace quantmill::QUANTMILL_CUDA {

inline constexpr int kBlockColumns = 128;
inline constexpr int kLanesOfRow = 8;
inline constexpr int kColumnsOfLane = kBlockColumns / kLanesOfRow;
inline constexpr int kBlockThreads = 256;
inline constexpr int kBlockRows = kBlockThreads / kLanesOfRow;
// Rows that the launches of one block of columns take: enough to fill a device, and a bound on what
// is in memory at a time.
inline constexpr int64_t kChunkRows = 8192;

inline LaunchShape ColumnBlockShape(int64_t rows) {
  return {(rows + kBlockRows - 1) / kBlockRows, 1, kBlockThreads,
          SharedBytes<float>(kBlockColumns * kBlockColumns)};
}

// One row of a block, as one of its lanes sees it. All threads of the block make the same calls.
class ColumnBlock {
 public:
  // rows, columns: of the matrix whose columns are settled; columns is at most kBlockColumns.
  __device__ ColumnBlock(int64_t rows, int64_t columns)
      : lane_(static_cast<int>(threadIdx.x) % kLanesOfRow),
        row_(static_cast<int64_t>(blockIdx.x) * kBlockRows + threadIdx.x / kLanesOfRow),
        rows_(rows),
        columns_(static_cast<int>(columns)),
        square_(SharedMemory().Take<float>(kBlockColumns * kBlockColumns)) {}

  // Past the last row, threads work on it again, and must not write.
  __device__ int64_t row() const { return std::min(row_, rows_ - 1); }
  __device__ bool writes() const { return row_ < rows_; }
  // Whether this lane keeps column k of its row.
  __device__ bool Keeps(int k) const { return writes() && k % kLanesOfRow == lane_; }

  // The square from global memory, 0 behind its columns. Waits for the block.
  __device__ void LoadSquare(View<const float> square) {
    for (int t = static_cast<int>(threadIdx.x); t < columns_ * kBlockColumns; t += kBlockThreads) {
      const int i = t / kBlockColumns;
      const int j = t % kBlockColumns;
      square_[t] = j < columns_ ? square.Row(i)[j] : 0.0f;
    }
    __syncthreads();
  }
  // The square's diagonal, to be read and changed: column k by one thread.
  template <typename Change>
  __device__ void ChangeDiagonal(const Change& change) {
    const int k = static_cast<int>(threadIdx.x);
    if (k < columns_) {
      const float x = square_[k * (kBlockColumns + 1)];
      square_[k * (kBlockColumns + 1)] = change(x);
    }
    __syncthreads();
  }
  __device__ float Diagonal(int k) const { return square_[k * (kBlockColumns + 1)]; }

  __device__ void LoadRow(View<const float> m) {
    ForEachOwn([&](int64_t j, float& own) { own = m.Row(row())[j]; });
  }
  // visit(column, x) with this lane's columns.
  template <typename Visit>
  __device__ void ForEachOwn(const Visit& visit) {
    Unrolled<kColumnsOfLane>([&](auto c) {
      const int j = c * kLanesOfRow + lane_;
      if (j < columns_) visit(j, own_[c]);
    });
  }

  // For each column k: step = settle(k, x_k); x_j += step * square[k, j] for j > k; x_k = step. All
  // lanes of the row settle, with the same numbers.
  template <typename Settle>
  __device__ void SettleAll(const Settle& settle) {
    Unrolled<kColumnsOfLane>([&](auto c) { SettleColumns<c>(settle); });
  }

 private:
  // The columns that lie in own_[kAt] of the row's lanes.
  template <int kAt, typename Settle>
  __device__ void SettleColumns(const Settle& settle) {
    const int first_of_row = static_cast<int>(threadIdx.x) % kWarp / kLanesOfRow * kLanesOfRow;
    const int count = std::min(int{kLanesOfRow}, columns_ - kAt * kLanesOfRow);
    for (int i = 0; i < count; ++i) {
      const int k = kAt * kLanesOfRow + i;
      const float step = settle(k, __shfl_sync(kAllLanes, own_[kAt], first_of_row + i));
      const SharedArray<float> coupled = square_ + (k * kBlockColumns + lane_);
      if (lane_ == i) own_[kAt] = step;
      if (lane_ > i) Add<kAt>(step, coupled);
      Unrolled<kColumnsOfLane - kAt - 1>([&](auto c) { Add<kAt + 1 + c>(step, coupled); });
    }
  }
  template <int kAt>
  __device__ void Add(float step, const SharedArray<float>& coupled) {
    const float factor = coupled[kAt * kLanesOfRow];
    own_[kAt] = fmaf(step, factor, own_[kAt]);
  }

  const int lane_;
  const int64_t row_;
  const int64_t rows_;
  const int columns_;
  const SharedArray<float> square_;
  float own_[kColumnsOfLane] = {};
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_COLUMN_BLOCK_H_
