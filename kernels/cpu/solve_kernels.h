// Kernels of cpu_solve.cc and cpu_factor.cc, one table per instruction set. Each call does the work
// of one task of the pool.
#ifndef QUANTMILL_KERNELS_CPU_SOLVE_KERNELS_H_
#define QUANTMILL_KERNELS_CPU_SOLVE_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace quantmill::cpu {

// Columns that GptqSolve and FactorGram take at a time: deep enough to amortize loading a tile of
// the result, small enough that a [128, 128] operand stays in the L2 cache.
inline constexpr int64_t kSolveBlock = 128;

// Which codes there are (QuantScheme, of which sources compiled per instruction set know nothing).
enum class CodeKind : uint8_t { kInt, kFp8, kFp4, kIq4Nl };
struct CodeRange {
  CodeKind type = CodeKind::kInt;
  float min_code = 0;  // kInt alone
  float max_code = 0;
};

// Grids and quadratic forms.
struct SolveKernels {
  // The smallest and largest of 0 and w[0, n); NaN is skipped. A zero may be -0.
  void (*range)(const float* w, int64_t n, float* lo, float* hi);
  // codes[i]: the code of w[i] by RoundToGrid's formula (ops.h). False if some w is NaN.
  bool (*round)(const float* w, int64_t n, float scale, float zero, const CodeRange& range,
                int8_t* codes);
  // dst[j * ldd + i] = src[i * lds + j].
  void (*transpose)(const float* src, int64_t lds, int64_t rows, int64_t cols, float* dst,
                    int64_t ldd);
  // result[r] = delta[r] G delta[r]^T for the rows of one tile; G from the strict lower triangle
  // of gram [in, in] and `diagonal`. scratch: quadratic_scratch(rows, in) floats.
  void (*quadratic)(const float* delta, int64_t delta_stride, int64_t rows, int64_t in,
                    const float* gram, int64_t gram_stride, const float* diagonal, float* result,
                    float* scratch);
  int64_t (*quadratic_scratch)(int64_t rows, int64_t in);
};
QUANTMILL_DECLARE_ISA_TABLE(SolveKernels, kSolveKernels);

// One tile of rows of a GptqSolve. Pointers to the tile's first row.
struct GptqTile {
  const float* weight;  // [rows, in]
  int64_t weight_stride;
  int64_t rows;
  int64_t in;
  const int32_t* order;     // [in]: column solved k-th
  const int32_t* group_of;  // [in]: its group
  const float* factor;      // [in, in]: R, upper triangle
  int64_t factor_stride;
  const float* scales;  // [rows, groups]
  int64_t scales_stride;
  const int8_t* zeros;  // [rows, groups], or null
  int64_t zeros_stride;
  int64_t groups;
  CodeRange range;
  int8_t* codes;  // [rows, in]
  int64_t codes_stride;
  float* loss;     // [rows]
  float* scratch;  // scratch(rows, in, groups) floats, 64-byte aligned
};
struct GptqKernels {
  void (*solve)(const GptqTile& tile);
  int64_t (*scratch)(int64_t rows, int64_t in, int64_t groups);
};
QUANTMILL_DECLARE_ISA_TABLE(GptqKernels, kGptqKernels);

// Steps of FactorGram on the upper triangle of gram [n, n]. A block is the columns [j0, j0 + nb),
// nb <= kSolveBlock; a tile is up to kSolveBlock rows or columns, from a multiple of it on.
struct FactorKernels {
  // U_JJ of the block's own square, from the last column up. Written to gram, and to `triangle`
  // ([triangle_floats]) in the layout of the steps below. Returns -1, or the column whose pivot is
  // not positive and finite.
  int64_t (*diagonal)(float* gram, int64_t stride, int64_t j0, int64_t nb, float* triangle,
                      float* scratch);
  // U[i, J] = A[i, J] U_JJ^-T for the rows [i0, i0 + rows); also left transposed in `strips`,
  // which holds all rows above j0: strip_floats(j0) floats.
  void (*panel)(float* gram, int64_t stride, int64_t i0, int64_t rows, int64_t j0, int64_t nb,
                const float* triangle, float* strips);
  // A[i, j] -= U[i, J] U[j, J]^T for rows [i0, i0 + rows) and columns [c0, c0 + cols), j >= i.
  void (*update)(float* gram, int64_t stride, int64_t i0, int64_t rows, int64_t c0, int64_t cols,
                 int64_t nb, const float* strips);
  // `triangle` once more from U_JJ in gram.
  void (*pack_triangle)(const float* gram, int64_t stride, int64_t j0, int64_t nb, float* triangle);
  // packed = U[J, j0 + nb .. n) in the layout of `invert`, for the columns [c0, c0 + cols).
  void (*pack_row)(const float* gram, int64_t stride, int64_t n, int64_t j0, int64_t nb, int64_t c0,
                   int64_t cols, float* packed);
  // R[J, c] for the columns [c0, c0 + cols): U_JJ^-1 for the block's own columns, and
  // -U_JJ^-1 (U[J, > J] R[> J, c]) right of it, R of the rows below being known.
  void (*invert)(float* gram, int64_t stride, int64_t n, int64_t j0, int64_t nb, int64_t c0,
                 int64_t cols, const float* triangle, const float* packed, float* scratch);
  int64_t triangle_floats;  // of one block's triangle
  int64_t scratch_floats;   // of `diagonal` and `invert`
  // Floats of the strips (or of the packed row) of an [n, n] problem.
  int64_t (*panel_floats)(int64_t n);
};
QUANTMILL_DECLARE_ISA_TABLE(FactorKernels, kFactorKernels);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_SOLVE_KERNELS_H_
