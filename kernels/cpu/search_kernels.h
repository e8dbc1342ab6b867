// The kernels behind SearchGrid and RefineCodes, one table per instruction set. Each call does the
// work of one task of the pool.
#ifndef QUANTMILL_KERNELS_CPU_SEARCH_KERNELS_H_
#define QUANTMILL_KERNELS_CPU_SEARCH_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/isa.h"
#include "kernels/cpu/solve_kernels.h"

namespace quantmill::cpu {

// Up to strip_rows rows of one group. Pointers to the first row and the group's first column.
struct SearchTile {
  const float* weight;  // [rows, width]
  int64_t weight_stride;
  int64_t rows;
  int64_t width;
  const float* blocks;  // [width, block]: rows of the blocks that SearchGrid is given
  int64_t blocks_stride;
  int64_t block;
  CodeRange range;
  const float* coarse;
  int64_t coarse_count;
  const float* fine;
  int64_t fine_count;
  bool mirror;
  // A positive effective scale as it can be stored. Not inlined here: see isa.h.
  float (*round_scale)(const void* rounding, float scale);
  const void* rounding;
  float* scales;  // [rows], grid_stride apart: start grid, then the result
  int64_t grid_stride;
  int8_t* zeros;  // likewise, or null
  int64_t zeros_stride;
  float* scratch;  // scratch(width) floats, 64-byte aligned
};
struct SearchKernels {
  int64_t strip_rows;
  void (*search)(const SearchTile& tile);
  int64_t (*scratch)(int64_t width);
};
QUANTMILL_DECLARE_ISA_TABLE(SearchKernels, kSearchKernels);

struct RefineKernels {
  // tile.factor: H in the strict lower triangle, in solve order. tile.weight, order, group_of,
  // scales, zeros, range as for GptqSolve; tile.codes in place. diagonal: [in].
  void (*refine)(const GptqTile& tile, const float* diagonal, int sweeps);
  int64_t (*scratch)(int64_t rows, int64_t in, int64_t groups);
};
QUANTMILL_DECLARE_ISA_TABLE(RefineKernels, kRefineKernels);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_SEARCH_KERNELS_H_
