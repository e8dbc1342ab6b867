// SearchGrid of the cuda backend.
//
// A block of threads takes one group of 32 rows, each of its eight warps four of them, candidate
// after candidate. The group's B lies in shared memory for all of them (where a group has several
// blocks, each is loaded anew for every candidate). d of a warp's rows lies there too, the four
// side by side: one read of B and one of d serve four multiplications a lane. Bound by those reads
// and multiplications, `block` a weight and candidate, both halves of B being summed.
#include <algorithm>

#include "kernels/cuda/codes.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/device.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/staging.h"
#include "kernels/cuda/unroll.h"
#include "kernels/op_checks.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kRowsOfWarp = 4;
constexpr int kRowsOfBlock = kWarps * kRowsOfWarp;
// The most columns of B: its square leaves room for d on every architecture (80 of 99 KB).
constexpr int kMostColumns = 128;

// What GridSearch tries, in device memory, and how scales are stored.
struct Candidates {
  const float* coarse;
  int coarse_count;
  const float* fine;
  int fine_count;
  bool mirror;
  float global_scale;
  DType scale_dtype;
};

struct Problem {
  View<const float> weight;
  View<const float> blocks;
  int64_t group_size;
  View<float> scales;
  View<int8_t> zeros;  // data is null where the scheme is symmetric
};

// One column of the four rows of a warp.
struct alignas(16) FourRows {
  float row[kRowsOfWarp];
};

struct Candidate {
  GridPoint point;
  float factor = 1;
  float sign = 1;
  float error = 0;
};

size_t SharedBytesOf(int64_t columns, int chunks) {
  return SharedBytes<float>(columns * chunks * kWarp) + SharedBytes<FourRows>(kWarps * columns);
}

// The search of one group by one block of threads. Candidates belong to rows: lane l works for the
// warp's row l % 4, as every fourth lane does. B has at most kChunks * 32 columns.
template <typename Kind, int kChunks>
class GroupSearch {
 public:
  __device__ GroupSearch(const Kind& kind, const Problem& problem, const Candidates& candidates,
                         SharedMemory& memory)
      : kind_(kind),
        p_(problem),
        candidates_(candidates),
        columns_(static_cast<int>(problem.blocks.cols)),
        lane_(static_cast<int>(threadIdx.x) % kWarp),
        first_row_(static_cast<int64_t>(blockIdx.x) * kRowsOfBlock +
                   static_cast<int>(threadIdx.x) / kWarp * kRowsOfWarp),
        group_(blockIdx.y),
        begin_(group_ * problem.group_size),
        end_(std::min(problem.weight.cols, begin_ + problem.group_size)),
        square_(memory.Take<float>(columns_ * kChunks * kWarp)),
        delta_(memory.Take<FourRows>(kWarps * columns_) +
               static_cast<int>(threadIdx.x) / kWarp * columns_) {}

  __device__ void Run() {
    const int64_t row = RowOf(lane_ % kRowsOfWarp);
    start_ = p_.scales.Row(row)[group_];
    best_.point = {start_, p_.zeros.data == nullptr ? 0 : p_.zeros.Row(row)[group_]};
    if (end_ - begin_ <= columns_) LoadSquare(begin_);
    best_.error = ErrorOf(best_.point);
    for (int i = 0; i < candidates_.coarse_count; ++i) {
      Try(candidates_.coarse[i], 1, best_.point.zero);
      if (candidates_.mirror) Try(candidates_.coarse[i], -1, best_.point.zero);
    }
    TryZeroPoints();
    for (int i = 0; i < candidates_.fine_count; ++i) {
      Try(best_.factor + candidates_.fine[i], best_.sign, best_.point.zero);
    }
    TryZeroPoints();
    if (lane_ >= kRowsOfWarp || first_row_ + lane_ >= p_.weight.rows) return;
    p_.scales.Row(row)[group_] = best_.point.scale;
    if (p_.zeros.data != nullptr) {
      p_.zeros.Row(row)[group_] = static_cast<int8_t>(best_.point.zero);
    }
  }

 private:
  // Past the last row, the last one is searched again, and not written.
  __device__ int64_t RowOf(int r) const { return std::min(first_row_ + r, p_.weight.rows - 1); }

  // A tie keeps the earlier one. What cannot be stored is passed over; its row is measured again in
  // vain, as the other rows of the block go on together.
  __device__ void Try(float factor, float sign, int zero) {
    const float stored =
        RoundedTo(candidates_.scale_dtype, start_ * factor * candidates_.global_scale) /
        candidates_.global_scale;
    const bool usable = factor > 0 && stored > 0 && stored < 3e38f;
    const GridPoint point = usable ? GridPoint{stored * sign, zero} : best_.point;
    const float error = ErrorOf(point);
    if (usable && error < best_.error) best_ = {point, factor, sign, error};
  }

  __device__ void TryZeroPoints() {
    if (p_.zeros.data == nullptr) return;
    for (int step = -1; step <= 1; step += 2) {
      Try(best_.factor, best_.sign,
          std::clamp(best_.point.zero + step, kind_.min_code, kind_.max_code));
    }
  }

  // B of the block that begins at `begin`, in rows of kChunks * 32, 0 behind its columns. Waits for
  // the threads of the block before and after.
  __device__ void LoadSquare(int64_t begin) {
    const int columns = ColumnsAt(begin);
    __syncthreads();
    for (int t = static_cast<int>(threadIdx.x); t < columns * kChunks * kWarp; t += kThreads) {
      const int i = t / (kChunks * kWarp);
      const int j = t % (kChunks * kWarp);
      square_[t] = j < columns ? p_.blocks.Row(begin + i)[j] : 0.0f;
    }
    __syncthreads();
  }
  __device__ int ColumnsAt(int64_t begin) const {
    return static_cast<int>(std::min<int64_t>(columns_, end_ - begin));
  }

  // The error of this lane's row; `point`: that row's. The whole block calls.
  __device__ float ErrorOf(const GridPoint& point) {
    FourRows errors = {};  // this lane's part of each row's
    for (int64_t begin = begin_; begin < end_; begin += columns_) {
      if (end_ - begin_ > columns_) LoadSquare(begin);
      const int columns = ColumnsAt(begin);
      TakeDelta(point, begin, columns);
      AddForm(columns, errors);
    }
    float mine = 0;
    Unrolled<kRowsOfWarp>([&](auto r) {
      const float error = WarpReduce(errors.row[r], Sum());
      if (lane_ % kRowsOfWarp == r) mine = error;
    });
    return mine;
  }

  // d = q - w of the warp's rows.
  __device__ void TakeDelta(const GridPoint& point, int64_t begin, int columns) {
    __syncwarp();  // delta_ may still be read
    GridPoint points[kRowsOfWarp];
    Unrolled<kRowsOfWarp>([&](auto r) {
      points[r] = {__shfl_sync(kAllLanes, point.scale, r), __shfl_sync(kAllLanes, point.zero, r)};
    });
    for (int j = lane_; j < columns; j += kWarp) {
      FourRows d;
      Unrolled<kRowsOfWarp>([&](auto r) {
        const float w = p_.weight.Row(RowOf(r))[begin + j];
        d.row[r] = kind_.ValueOf(kind_.CodeOf(w, points[r]), points[r]) - w;
      });
      delta_[j] = d;
    }
    __syncwarp();
  }

  // errors += d B d^T: a lane sums the columns lane, lane + 32, ... of d B.
  __device__ void AddForm(int columns, FourRows& errors) const {
    FourRows sums[kChunks] = {};
    for (int i = 0; i < columns; ++i) {
      const FourRows d = delta_[i];
      Unrolled<kChunks>([&](auto c) {
        const float b = square_[(i * kChunks + c) * kWarp + lane_];
        Unrolled<kRowsOfWarp>([&](auto r) { sums[c].row[r] = fmaf(b, d.row[r], sums[c].row[r]); });
      });
    }
    Unrolled<kChunks>([&](auto c) {
      const int j = c * kWarp + lane_;
      if (j >= columns) return;
      const FourRows d = delta_[j];
      Unrolled<kRowsOfWarp>(
          [&](auto r) { errors.row[r] = fmaf(sums[c].row[r], d.row[r], errors.row[r]); });
    });
  }

  const Kind kind_;
  const Problem& p_;
  const Candidates& candidates_;
  const int columns_;  // of a block of B
  const int lane_;
  const int64_t first_row_;  // of the warp
  const int64_t group_;
  const int64_t begin_;  // columns of the group
  const int64_t end_;
  const SharedArray<float> square_;
  const SharedArray<FourRows> delta_;  // of the warp, [columns]
  // Of this lane's row.
  float start_ = 1;
  Candidate best_;
};

template <typename Kind, int kChunks>
__global__ void __launch_bounds__(kThreads)
    SearchKernel(Kind kind, Problem problem, Candidates candidates) {
  SharedMemory memory;
  GroupSearch<Kind, kChunks>(kind, problem, candidates, memory).Run();
}

template <int kChunks>
void LaunchSearch(Exec& exec, const QuantScheme& scheme, const Problem& problem,
                  const Candidates& candidates) {
  const LaunchShape shape{(problem.weight.rows + kRowsOfBlock - 1) / kRowsOfBlock,
                          problem.scales.cols, kThreads,
                          SharedBytesOf(problem.blocks.cols, kChunks)};
  WithCodes(scheme, [&](auto kind) {
    Launch(exec, SearchKernel<decltype(kind), kChunks>, shape, kind, problem, candidates);
  });
}

}  // namespace

void CudaBackend::SearchGrid(Exec& exec, ConstMatrix weight, ConstMatrix blocks,
                             const QuantScheme& scheme, const GridSearch& search, Matrix scales,
                             Matrix zero_points) {
  CheckSearchGrid(weight, blocks, scheme, search, scales, zero_points);
  const int64_t size = scheme.GroupSizeFor(weight.cols);
  Check(blocks.cols <= kMostColumns, "SearchGrid: a block is at most 128 columns");
  if (weight.size() == 0) return;
  Workspace::Scope scope(exec.workspace);
  const Candidates candidates{OnDevice(exec, scope, search.coarse),
                              static_cast<int>(search.coarse.size()),
                              OnDevice(exec, scope, search.fine),
                              static_cast<int>(search.fine.size()),
                              search.mirror,
                              search.global_scale,
                              scheme.scale_dtype};
  const Problem problem{In<float>(weight), In<float>(blocks), size, Out<float>(scales),
                        Out<int8_t>(scheme.symmetric ? Matrix{} : zero_points)};
  if (blocks.cols <= kWarp) {
    LaunchSearch<1>(exec, scheme, problem, candidates);
  } else if (blocks.cols <= 2 * kWarp) {
    LaunchSearch<2>(exec, scheme, problem, candidates);
  } else {
    LaunchSearch<4>(exec, scheme, problem, candidates);
  }
}

}  // namespace quantmill::QUANTMILL_CUDA
