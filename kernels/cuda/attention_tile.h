// What a block of attention does with one tile of keys: products, softmax, products. Device code of
// attention_kernel.h.
//
// A block has 256 threads, 16 across keys or dimensions (x) by 16 across rows (y); a row is a
// (token, query head). Thread (x, y) computes kRows rows y * kRows..., for them
//   scores of the keys x, x + 16, x + 32, x + 48 of the tile, and
//   outputs of the dimensions 4 x to 4 x + 3 of each chunk of 64 dimensions, of which there are up
//   to kChunks.
// Four rows by four keys (or dimensions) are 64 fmaf for eight 16-byte reads of shared memory,
// which its bandwidth just feeds. The 16 threads of a row are half a warp: reductions are shuffles.
#ifndef QUANTMILL_KERNELS_CUDA_ATTENTION_TILE_H_
#define QUANTMILL_KERNELS_CUDA_ATTENTION_TILE_H_

#include <cfloat>
#include <cmath>

#include "kernels/cuda/attention_arguments.h"
#include "kernels/cuda/device.h"

namespace quantmill::QUANTMILL_CUDA {

inline constexpr int kAcross = 16;  // threads in x, and in y
inline constexpr int kAttentionThreads = kAcross * kAcross;
inline constexpr int kTileKeys = 64;  // tiles begin at multiples of it
inline constexpr int kKeysOfThread = kTileKeys / kAcross;
inline constexpr int kChunkQuads = kAcross;  // 64 dimensions
// An odd number of quads from one row of shared memory to the next: the eight 16-byte columns of
// its banks then serve neighbouring rows at once.
inline constexpr int kTileStride = kChunkQuads + 1;
constexpr int QueryStride(int quads) { return quads | 1; }

template <typename T, typename Combine>
__device__ T ReduceAcross(T x, const Combine& combine) {
  for (int distance = kAcross / 2; distance > 0; distance /= 2) {
    x = combine(x, __shfl_xor_sync(kAllLanes, x, distance));
  }
  return x;
}

// The rows of one thread.
template <int kRows, int kChunks>
struct AttentionRows {
  using Weights = Pack<float, kRows>;
  // Reads of shared memory in flight. Several rows have fmaf enough to hide them, and no registers.
  static constexpr int kQuadsAtOnce = kRows == 1 ? 4 : 1;
  static constexpr int kKeysAtOnce = kRows == 1 ? 8 : 2;

  int x;
  int y;
  int position[kRows];  // -1: no row, which sees nothing
  float slope[kRows];   // of ALiBi, in units of log2
  float best[kRows];    // running maximum of the scores
  float sum[kRows];     // of this thread's weights
  float out[kRows][kChunks][4];

  // out, as queries are loaded into it, or the result: a Hadamard rotation of each row, n being a
  // power of two. Distances within a quad, then across the threads of the row, then across chunks.
  __device__ void Rotate(int n) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        RotateQuad(n, out[r][c]);
        for (int step = 1; step < kAcross && 4 * step < n; step *= 2) {
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float mine = out[r][c][i];
            const float other = __shfl_xor_sync(kAllLanes, mine, step);
            out[r][c][i] = (x & step) != 0 ? other - mine : mine + other;
          }
        }
      }
      RotateChunks(n, out[r]);
    }
  }

  __device__ static void RotateQuad(int n, float (&v)[4]) {
    if (n > 1) {
      Butterfly(v[0], v[1]);
      Butterfly(v[2], v[3]);
    }
    if (n > 2) {
      Butterfly(v[0], v[2]);
      Butterfly(v[1], v[3]);
    }
  }
  __device__ static void RotateChunks(int n, float (&v)[kChunks][4]) {
    const float scale = 1.0f / sqrtf(static_cast<float>(n));
#pragma unroll
    for (int step = 1; step < kChunks; step *= 2) {
      if (4 * kAcross * step >= n) break;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
        if ((c & step) != 0) continue;
#pragma unroll
        for (int i = 0; i < 4; ++i) Butterfly(v[c][i], v[c + step][i]);
      }
    }
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) v[c][i] *= scale;
    }
  }
  __device__ static void Butterfly(float& a, float& b) {
    const float left = a;
    const float right = b;
    a = left + right;
    b = left - right;
  }

  __device__ void Begin() {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      best[r] = -FLT_MAX;
      sum[r] = 0;
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[r][c][i] = 0;
      }
    }
  }

  // scores += q . k over `quads` quads of dimensions, in order. q: of row y * kRows, at the first
  // of them. keys: [64][kTileStride].
  __device__ void AddScores(SharedArray<Quad> q, int q_stride, SharedArray<Quad> keys, int quads,
                            float (&scores)[kRows][kKeysOfThread]) const {
#pragma unroll kQuadsAtOnce
    for (int d = 0; d < quads; ++d) {
      Quad key[kKeysOfThread];
#pragma unroll
      for (int j = 0; j < kKeysOfThread; ++j) key[j] = keys[(x + j * kAcross) * kTileStride + d];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const Quad query = q[r * q_stride + d];
#pragma unroll
        for (int j = 0; j < kKeysOfThread; ++j) {
#pragma unroll
          for (int i = 0; i < 4; ++i) scores[r][j] = fmaf(query.x[i], key[j].x[i], scores[r][j]);
        }
      }
    }
  }

  // Scores become weights 2^(score - maximum), 0 for keys that a row does not see (whatever their
  // slots hold), written to `weights` ([64][kTileStride]: key, y); sum and output are rescaled when
  // the maximum grows. A NaN score is no maximum; its weight is NaN.
  __device__ void Softmax(const ScoreShape& shape, int tile_begin,
                          float (&scores)[kRows][kKeysOfThread], SharedArray<Weights> weights) {
    Weights tile[kKeysOfThread];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const KeyRange seen = VisibleKeys(position[r], shape.window, tile_begin, kTileKeys);
      float top = -FLT_MAX;
#pragma unroll
      for (int j = 0; j < kKeysOfThread; ++j) {
        const int key = x + j * kAcross;
        float& score = scores[r][j];
        if (shape.cap > 0) score = shape.cap * tanhf(score);
        if (shape.slopes != nullptr) {
          score = fmaf(slope[r], static_cast<float>(tile_begin + key - position[r]), score);
        }
        if (key < seen.lo || key >= seen.hi) score = -INFINITY;
        top = fmaxf(top, score);
      }
      top = fmaxf(best[r], ReduceAcross(top, MaxOfNumbers()));
      if (top > best[r]) Rescale(r, exp2f(best[r] - top));
      best[r] = top;
#pragma unroll
      for (int j = 0; j < kKeysOfThread; ++j) tile[j].x[r] = exp2f(scores[r][j] - top);
      sum[r] += (tile[0].x[r] + tile[1].x[r]) + (tile[2].x[r] + tile[3].x[r]);
    }
#pragma unroll
    for (int j = 0; j < kKeysOfThread; ++j) {
      weights[(x + j * kAcross) * kTileStride + y] = tile[j];
    }
  }

  __device__ void Rescale(int r, float factor) {
    sum[r] *= factor;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) out[r][c][i] *= factor;
    }
  }

  // out += weight * value over all keys of the tile, in order, for dimensions of one chunk. All
  // rows see all keys. values: [64][kTileStride], at this thread's quad.
  __device__ void AddValues(SharedArray<Weights> weights, SharedArray<Quad> values, int chunk) {
#pragma unroll kKeysAtOnce
    for (int key = 0; key < kTileKeys; ++key) {
      const Weights weight = weights[key * kTileStride + y];
      const Quad value = values[key * kTileStride];
#pragma unroll
      for (int r = 0; r < kRows; ++r) AddValue(r, chunk, weight.x[r], value);
    }
  }

  // The same where rows see some of the keys. A row adds the values that it sees and no others: an
  // unseen one may be NaN, which a weight of 0 would not silence.
  __device__ void AddSeenValues(int window, int tile_begin, SharedArray<Weights> weights,
                                SharedArray<Quad> values, int chunk) {
    KeyRange seen[kRows];
    KeyRange any{kTileKeys, 0};
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      seen[r] = VisibleKeys(position[r], window, tile_begin, kTileKeys);
      any.lo = min(any.lo, seen[r].lo);
      any.hi = max(any.hi, seen[r].hi);
    }
    for (int key = any.lo; key < any.hi; ++key) {
      const Weights weight = weights[key * kTileStride + y];
      const Quad value = values[key * kTileStride];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        if (key >= seen[r].lo && key < seen[r].hi) AddValue(r, chunk, weight.x[r], value);
      }
    }
  }

  __device__ void AddValue(int r, int chunk, float weight, const Quad& value) {
#pragma unroll
    for (int i = 0; i < 4; ++i) out[r][chunk][i] = fmaf(weight, value.x[i], out[r][chunk][i]);
  }
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_ATTENTION_TILE_H_
