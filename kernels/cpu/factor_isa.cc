// Steps of FactorGram: H = U U^T from the last block of columns up, then R = U^-1 from the last
// block of rows up, both in the upper triangle of one matrix.
//
// Everything is the tile product and one triangular substitution: U_JJ X = C serves the panel of
// the factorization (transposed) and the rows of the inverse. Substituting, rather than multiplying
// by the inverse of U_JJ, keeps both backward stable.
#include "kernels/cpu/solve_kernels.h"
#include "kernels/cpu/tile_gemm.h"

namespace quantmill::cpu::QUANTMILL_ISA {
namespace {

constexpr float kLargest = 0x1.fffffep127f;

// A block's triangle: U_JJ packed by rows, [row blocks][padded][kTileRows], padded with the
// identity; then 1 / U[k, k].
int64_t ReciprocalsAt(int64_t padded) { return padded * padded; }

// Solves U_JJ X = C in place. c: [padded, kTileCols].
void Substitute(const float* triangle, int64_t padded, float* c) {
  const float* reciprocals = triangle + ReciprocalsAt(padded);
  for (int64_t k = padded - kTileRows; k >= 0; k -= kTileRows) {
    const float* rows = triangle + k * padded;  // [padded][kTileRows]
    const int64_t below = k + kTileRows;
    const Tile sum = TileProduct<false>(rows + below * kTileRows, kTileRows, c + below * kTileCols,
                                        kTileCols, padded - below);
    const float* square = rows + k * kTileRows;  // U[k + r, k + s] at [s][r]
#pragma GCC unroll 2
    for (int64_t v = 0; v < kTileVecs; ++v) {
      Vec x[kTileRows];
#pragma GCC unroll 8
      for (int64_t r = 0; r < kTileRows; ++r) {
        x[r] = Load(c + (k + r) * kTileCols + v * kLanes) - sum.v[r][v];
      }
#pragma GCC unroll 8
      for (int64_t s = kTileRows - 1; s >= 0; --s) {
        x[s] *= Broadcast(reciprocals[k + s]);
        Store(c + (k + s) * kTileCols + v * kLanes, x[s]);
#pragma GCC unroll 8
        for (int64_t r = 0; r < s; ++r) {
          x[r] = Fnma(Broadcast(square[s * kTileRows + r]), x[s], x[r]);
        }
      }
    }
  }
}

// Row j of t holds column j of U, up to its diagonal; the rest of a row is scratch.
int64_t FactorSquare(float* t, int64_t ld, int64_t nb) {
  for (int64_t j = nb - 1; j >= 0; --j) {
    float* column = t + j * ld;
    const float pivot = column[j];
    if (!(pivot > 0) || !(pivot <= kLargest)) return j;
    const float root = __builtin_sqrtf(pivot);
    const Vec reciprocal = Broadcast(1.0f / root);
    for (int64_t i = 0; i < j; i += kLanes) Store(column + i, Load(column + i) * reciprocal);
    column[j] = root;
    for (int64_t i = 0; i < j; ++i) {
      float* row = t + i * ld;
      const Vec factor = Broadcast(column[i]);
      for (int64_t m = 0; m <= i; m += kLanes) {
        Store(row + m, Fnma(factor, Load(column + m), Load(row + m)));
      }
    }
  }
  return -1;
}

void PackTriangle(const float* gram, int64_t stride, int64_t j0, int64_t nb, float* triangle) {
  const int64_t padded = RoundUp(nb, kTileRows);
  for (int64_t i = 0; i < padded; ++i) {
    float* to = triangle + i / kTileRows * kTileRows * padded + i % kTileRows;
    const float* row = gram + (j0 + i) * stride + j0;
    for (int64_t j = 0; j < padded; ++j) {
      to[j * kTileRows] = i == j ? 1.0f : 0.0f;
      if (i <= j && j < nb) to[j * kTileRows] = row[j];
    }
    triangle[ReciprocalsAt(padded) + i] = 1.0f / to[i * kTileRows];
  }
}

int64_t Diagonal(float* gram, int64_t stride, int64_t j0, int64_t nb, float* triangle,
                 float* scratch) {
  constexpr int64_t kLd = kSolveBlock;
  std::memset(scratch, 0, sizeof(float) * kLd * kLd);
  for (int64_t j = 0; j < nb; ++j) {
    for (int64_t i = 0; i <= j; ++i) scratch[j * kLd + i] = gram[(j0 + i) * stride + j0 + j];
  }
  const int64_t failed = FactorSquare(scratch, kLd, nb);
  if (failed >= 0) return j0 + failed;
  for (int64_t j = 0; j < nb; ++j) {
    for (int64_t i = 0; i <= j; ++i) gram[(j0 + i) * stride + j0 + j] = scratch[j * kLd + i];
  }
  PackTriangle(gram, stride, j0, nb, triangle);
  return -1;
}

void Panel(float* gram, int64_t stride, int64_t i0, int64_t rows, int64_t j0, int64_t nb,
           const float* triangle, float* strips) {
  const int64_t padded = RoundUp(nb, kTileRows);
  for (int64_t i = i0; i < i0 + rows; i += kTileCols) {
    float* strip = strips + i * padded;
    const int64_t held = Least(kTileCols, i0 + rows - i);
    if (held < kTileCols || nb < padded) {
      std::memset(strip, 0, sizeof(float) * static_cast<size_t>(padded * kTileCols));
    }
    Transpose(gram + i * stride + j0, stride, held, nb, strip, kTileCols);
    Substitute(triangle, padded, strip);
    Transpose(strip, kTileCols, nb, held, gram + i * stride + j0, stride);
  }
}

// c[r][j] -= tile[r][j] for the elements inside the matrix and on or above its diagonal.
// first: column minus row of the tile's corner.
void SubtractEdge(const Tile& tile, int64_t rows, int64_t cols, int64_t first, float* c,
                  int64_t ldc) {
  float lanes[kTileRows][kTileCols];
  std::memcpy(lanes, &tile, sizeof(lanes));
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t j = 0; j < cols; ++j) {
      if (first + j >= r) c[r * ldc + j] -= lanes[r][j];
    }
  }
}

void Update(float* gram, int64_t stride, int64_t i0, int64_t rows, int64_t c0, int64_t cols,
            int64_t nb, const float* strips) {
  const int64_t padded = RoundUp(nb, kTileRows);
  for (int64_t j = c0; j < c0 + cols; j += kTileCols) {
    const float* b = strips + j * padded;
    const int64_t held_cols = Least(kTileCols, c0 + cols - j);
    for (int64_t i = i0; i < i0 + rows; i += kTileRows) {
      if (j + held_cols <= i) break;  // below the diagonal from here on
      const float* a = strips + i / kTileCols * kTileCols * padded + i % kTileCols;
      const int64_t held_rows = Least(kTileRows, i0 + rows - i);
      float* c = gram + i * stride + j;
      if (held_rows == kTileRows && held_cols == kTileCols && j >= i + kTileRows - 1) {
        SubtractProduct<false>(a, kTileCols, b, kTileCols, nb, c, stride);
      } else {
        const Tile sum = TileProduct<false>(a, kTileCols, b, kTileCols, nb);
        SubtractEdge(sum, held_rows, held_cols, j - i, c, stride);
      }
    }
  }
}

// packed: [row blocks][n - j0 - nb][kTileRows].
void PackRow(const float* gram, int64_t stride, int64_t n, int64_t j0, int64_t nb, int64_t c0,
             int64_t cols, float* packed) {
  const int64_t depth = n - j0 - nb;
  float* to = packed + (c0 - j0 - nb) * kTileRows;
  for (int64_t i = 0; i < RoundUp(nb, kTileRows); i += kTileRows) {
    float* rows = to + i * depth;
    const int64_t held = Least(kTileRows, nb - i);
    if (held < kTileRows) {
      std::memset(rows, 0, sizeof(float) * static_cast<size_t>(cols * kTileRows));
    }
    for (int64_t r = 0; r < held; ++r) {
      const float* row = gram + (j0 + i + r) * stride + c0;
      for (int64_t k = 0; k < cols; ++k) rows[k * kTileRows + r] = row[k];
    }
  }
}

// b = the piece of R with rows [k0, k0 + depth) and up to kTileCols columns from c on, 0 below the
// diagonal (where gram holds H) and past the edge.
void LoadPiece(const float* gram, int64_t stride, int64_t k0, int64_t depth, int64_t c,
               int64_t cols, float* b) {
  const bool whole = cols == kTileCols && k0 + depth <= c + 1;
  for (int64_t k = 0; k < depth; ++k) {
    const float* row = gram + (k0 + k) * stride + c;
    float* to = b + k * kTileCols;
    if (whole) {
      std::memcpy(to, row, sizeof(float) * kTileCols);
      continue;
    }
    for (int64_t j = 0; j < kTileCols; ++j) to[j] = j < cols && c + j >= k0 + k ? row[j] : 0.0f;
  }
}

// c = R[J, j ..] of one strip, c: [padded, kTileCols]; H stays below the diagonal.
void StoreInverse(const float* c, int64_t stride, int64_t j0, int64_t nb, int64_t j, int64_t cols,
                  float* gram) {
  for (int64_t i = 0; i < nb; ++i) {
    const int64_t first = j0 + i > j ? j0 + i - j : 0;
    if (first >= cols) return;
    std::memcpy(gram + (j0 + i) * stride + j + first, c + i * kTileCols + first,
                sizeof(float) * static_cast<size_t>(cols - first));
  }
}

void Invert(float* gram, int64_t stride, int64_t n, int64_t j0, int64_t nb, int64_t c0,
            int64_t cols, const float* triangle, const float* packed, float* scratch) {
  const int64_t padded = RoundUp(nb, kTileRows);
  const int64_t depth = n - j0 - nb;
  float* b = scratch;                            // [kSolveBlock, kTileCols]
  float* c = scratch + kSolveBlock * kTileCols;  // [strips][padded, kTileCols]
  std::memset(c, 0, sizeof(float) * static_cast<size_t>(RoundUp(cols, kTileCols) * padded));
  if (c0 == j0) {
    for (int64_t i = 0; i < nb; ++i) {
      c[i / kTileCols * kTileCols * padded + i * kTileCols + i % kTileCols] = 1.0f;
    }
  }
  for (int64_t k0 = j0 + nb; k0 < c0 + cols; k0 += kSolveBlock) {
    const int64_t span = Least(kSolveBlock, c0 + cols - k0);
    for (int64_t j = 0; j < cols; j += kTileCols) {
      LoadPiece(gram, stride, k0, span, c0 + j, Least(kTileCols, cols - j), b);
      for (int64_t i = 0; i < padded; i += kTileRows) {
        SubtractProduct<false>(packed + i * depth + (k0 - j0 - nb) * kTileRows, kTileRows, b,
                               kTileCols, span, c + j * padded + i * kTileCols, kTileCols);
      }
    }
  }
  for (int64_t j = 0; j < cols; j += kTileCols) {
    Substitute(triangle, padded, c + j * padded);
    StoreInverse(c + j * padded, stride, j0, nb, c0 + j, Least(kTileCols, cols - j), gram);
  }
}

int64_t PanelFloats(int64_t n) { return RoundUp(n, kTileCols) * kSolveBlock; }

}  // namespace

const FactorKernels kFactorKernels = {&Diagonal,
                                      &Panel,
                                      &Update,
                                      &PackTriangle,
                                      &PackRow,
                                      &Invert,
                                      kSolveBlock* kSolveBlock + kSolveBlock,
                                      kSolveBlock*(kSolveBlock + kTileCols),
                                      &PanelFloats};

}  // namespace quantmill::cpu::QUANTMILL_ISA
