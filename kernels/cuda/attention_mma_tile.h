// What a warp of attention on tensor cores does with one tile of keys: products, softmax, products.
// Device code of attention_mma_kernel.h; ptx.h says which lane holds what.
#ifndef QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_TILE_H_
#define QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_TILE_H_

#include <cfloat>
#include <cmath>

#include "kernels/cuda/attention_arguments.h"
#include "kernels/cuda/ptx.h"

namespace quantmill::QUANTMILL_CUDA {

inline constexpr int kMmaRows = 16;    // rows of one product
inline constexpr int kOctet = 8;       // columns of one product: elements of an Octet
inline constexpr int kLanesOfRow = 4;  // that share a row of A and C

// Where octet `octet` of row `row` lies in a tile of rows of kOctets octets. Eight rows below each
// other are in different banks: ldmatrix reads such eight at once.
template <int kOctets>
struct OctetTile {
  static_assert(kOctets % 4 == 0);
  // Octets of a row change places within groups of as many.
  static constexpr int kGroup = kOctets % 8 == 0 ? 8 : 4;

  __device__ static int At(int row, int octet) {
    const int turn = kGroup == 8 ? row % 8 : row / 2 % 4;
    return row * kOctets + (octet ^ turn);
  }
  // At(row, octet + other) from At(row, octet), where these have no bit in common: addresses follow
  // from few others.
  __device__ static int From(int at, int other) {
    return (at ^ (other % kGroup)) + other / kGroup * kGroup;
  }
};

// Where the rows of a warp stand.
struct WarpRows {
  int first_row;       // of the block
  int first_position;  // of the first row
  int last_position;   // of the last one; -1: the warp has no rows
  int group;           // rows of a position
  int row_offset;      // of first_row's predecessors with the same position
  int first_head;      // of the group
};

// The rows of one warp, kRowTiles tiles of 16: of each a lane holds parts of rows g and g + 8.
template <int kDims, int kKeys, int kRowTiles>
struct MmaRows {
  static constexpr int kOctets = kDims / kOctet;
  using Tile = OctetTile<kOctets>;
  static constexpr int kDimSteps = kDims / 16;
  static constexpr int kKeySteps = kKeys / 16;
  using Scores = float[kRowTiles][kKeys / kOctet][4];
  // Weights as A of the second product: rows g and g + 8, two neighbouring keys in a register.
  using Weights = uint32_t[kRowTiles][kKeys / kOctet][2];

  WarpRows rows;
  int lane;
  float best[kRowTiles][2];  // running maximum of the scores
  float sum[kRowTiles][2];   // of this lane's weights
  float out[kRowTiles][kOctets][4];

  __device__ void Begin() {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
      best[r][0] = best[r][1] = -FLT_MAX;
      sum[r][0] = sum[r][1] = 0;
#pragma unroll
      for (int d = 0; d < kOctets; ++d) {
#pragma unroll
        for (int i = 0; i < 4; ++i) out[r][d][i] = 0;
      }
    }
  }

  // The first key of a tile of which this lane holds scores.
  __device__ int FirstKey() const { return 2 * (lane % kLanesOfRow); }
  // Row `half` of two of a row tile, counted from the warp's first.
  __device__ int RowOf(int row_tile, int half) const {
    return row_tile * kMmaRows + half * 8 + lane / kLanesOfRow;
  }
  __device__ int PositionOf(int row) const {
    return rows.first_position + (rows.row_offset + row) / rows.group;
  }

  // scores = q . k.  queries: those of the warp; keys: [kKeys], both in octets as OctetTile lays
  // them.
  __device__ void Multiply(SharedArray<Octet> queries, SharedArray<Octet> keys,
                           Scores& scores) const {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int n = 0; n < kKeys / kOctet; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) scores[r][n][i] = 0;
      }
    }
    const int of_query = Tile::At(lane % 16, lane / 16);
    const int of_key = Tile::At(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll 2  // more operands at once than registers else
    for (int d = 0; d < kDimSteps; ++d) {
      uint32_t query[kRowTiles][4];
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        LoadMatrices(queries + (Tile::From(of_query, 2 * d) + r * 16 * kOctets), query[r]);
      }
#pragma unroll
      for (int n = 0; n < kKeySteps; ++n) {
        uint32_t key[4];
        LoadMatrices(keys + (Tile::From(of_key, 2 * d) + n * 16 * kOctets), key);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          MultiplyAddBF16(query[r], key[0], key[1], scores[r][2 * n]);
          MultiplyAddBF16(query[r], key[2], key[3], scores[r][2 * n + 1]);
        }
      }
    }
  }

  // Calls visit(score, row tile, half, n) for all of this lane's scores, of key FirstKey() + n.
  template <typename Visit>
  __device__ void ForEachScore(Scores& scores, const Visit& visit) const {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int n = 0; n < kKeys / kOctet; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) visit(scores[r][n][i], r, i / 2, n * kOctet + i % 2);
      }
    }
  }

  // scores = cap * tanh(scores), tanh x = 1 - 2 / (1 + e^2x): to 2^-22 of the cap.
  __device__ void Cap(float cap, Scores& scores) const {
    ForEachScore(scores, [&](float& score, int, int, int) {
      score = fmaf(-2 * cap, Reciprocal(1 + Exp2(2 * kLog2E * score)), cap);
    });
  }

  // ALiBi: what its distance takes off the score of a key.
  __device__ void Shift(const float* slopes, int tile_begin, Scores& scores) const {
    float slope[kRowTiles][2];
    float distance[kRowTiles][2];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = RowOf(r, half);
        slope[r][half] = slopes[rows.first_head + (rows.row_offset + row) % rows.group] * kLog2E;
        distance[r][half] = static_cast<float>(tile_begin + FirstKey() - PositionOf(row));
      }
    }
    ForEachScore(scores, [&](float& score, int r, int half, int n) {
      score = fmaf(slope[r][half], distance[r][half] + static_cast<float>(n), score);
    });
  }

  // Scores of keys that a row does not see become -infinity.
  __device__ void Mask(int window, int tile_begin, Scores& scores) const {
    KeyRange seen[kRowTiles][2];
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int position = PositionOf(RowOf(r, half));
        seen[r][half] = VisibleKeys(position, window, tile_begin + FirstKey(), kKeys);
      }
    }
    ForEachScore(scores, [&](float& score, int r, int half, int n) {
      if (n < seen[r][half].lo || n >= seen[r][half].hi) score = -INFINITY;
    });
  }

  // Weights 2^(score - maximum), rounded to BF16 as they will be multiplied, and summed as rounded;
  // sum and output are rescaled by what the maximum grew (by 1 where it did not). A NaN score is no
  // maximum; its weight is NaN.
  __device__ void Softmax(const Scores& scores, Weights& weights) {
#pragma unroll
    for (int r = 0; r < kRowTiles; ++r) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = best[r][half];
#pragma unroll
        for (int n = 0; n < kKeys / kOctet; ++n) {
          top = fmaxf(top, fmaxf(scores[r][n][2 * half], scores[r][n][2 * half + 1]));
        }
        top = ReduceRow(top, MaxOfNumbers());
        Rescale(r, half, Exp2(best[r][half] - top));
        best[r][half] = top;
        float added = 0;
#pragma unroll
        for (int n = 0; n < kKeys / kOctet; ++n) {
          const uint32_t pair =
              PairBF16(Exp2(scores[r][n][2 * half] - top), Exp2(scores[r][n][2 * half + 1] - top));
          weights[r][n][half] = pair;
          added += LowBF16(pair) + HighBF16(pair);
        }
        sum[r][half] += added;
      }
    }
  }

  __device__ void Rescale(int row_tile, int half, float factor) {
    sum[row_tile][half] *= factor;
#pragma unroll
    for (int d = 0; d < kOctets; ++d) {
      out[row_tile][d][2 * half] *= factor;
      out[row_tile][d][2 * half + 1] *= factor;
    }
  }

  // out += weight * value.  values: [kKeys].
  __device__ void AddValues(const Weights& weights, SharedArray<Octet> values) {
    const int of_value = Tile::At(lane % 16, lane / 16);
#pragma unroll
    for (int k = 0; k < kKeySteps; ++k) {
#pragma unroll
      for (int d = 0; d < kDimSteps; ++d) {
        uint32_t value[4];
        LoadTransposed(values + (Tile::From(of_value, 2 * d) + k * 16 * kOctets), value);
#pragma unroll
        for (int r = 0; r < kRowTiles; ++r) {
          const uint32_t weight[4] = {weights[r][2 * k][0], weights[r][2 * k][1],
                                      weights[r][2 * k + 1][0], weights[r][2 * k + 1][1]};
          MultiplyAddBF16(weight, value[0], value[1], out[r][2 * d]);
          MultiplyAddBF16(weight, value[2], value[3], out[r][2 * d + 1]);
        }
      }
    }
  }

  template <typename Combine>
  __device__ static float ReduceRow(float x, const Combine& combine) {
    for (int distance = kLanesOfRow / 2; distance > 0; distance /= 2) {
      x = combine(x, __shfl_xor_sync(kAllLanes, x, distance));
    }
    return x;
  }
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_ATTENTION_MMA_TILE_H_
