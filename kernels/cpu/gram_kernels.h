// The kernels behind AddGram, one table per instruction set.
//
// A chunk of tokens is packed into panels of `panel_cols` columns of x; the last panel is padded
// with zeros. A panel is [steps][panel_cols] of 4 bytes each: a step is one token in F32, or two
// tokens as a pair of BF16 (the second one zero past the end). Both factors of x^T x are read from
// the same panels.
#ifndef QUANTMILL_KERNELS_CPU_GRAM_KERNELS_H_
#define QUANTMILL_KERNELS_CPU_GRAM_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace quantmill::cpu {

struct GramPackArgs {
  const void* x = nullptr;      // [tokens][cols] F32 or BF16
  int64_t x_row = 0;            // elements between tokens
  const void* minus = nullptr;  // like x: x - minus is packed (rounded to BF16 in pairs); or null
  int64_t minus_row = 0;
  bool bf16 = false;  // type of x
  int64_t tokens = 0;
  int cols = 0;  // <= panel_cols
  float* panel = nullptr;
  // Where `transposed`: the same, [panel_cols][transposed_row] (steps run along rows); steps past
  // the tokens are zero in both, up to a multiple of step_unit.
  float* transposed = nullptr;
  int64_t transposed_row = 0;
};

// gram[i, j] += sum over the chunk of a[t, i] * b[t, j], for i < rows, j < cols and, on the
// diagonal (a == b), i <= j alone.
struct GramBlockArgs {
  const float* a = nullptr;
  const float* b = nullptr;
  const float* a_transposed = nullptr;  // where `transposed`
  int64_t transposed_row = 0;
  int64_t steps = 0;  // a multiple of step_unit
  int rows = 0;
  int cols = 0;
  float* sums = nullptr;  // scratch, [panel_cols][panel_cols]
  float* gram = nullptr;
  int64_t gram_row = 0;
};

struct GramKernels {
  int panel_cols = 0;
  bool pairs = false;  // BF16 is packed into pairs; otherwise widened to F32
  // Of pairs alone: add_block_pairs reads its left operand transposed.
  bool transposed = false;
  int64_t step_unit = 1;  // steps are padded to a multiple of it, where `transposed`

  void (*pack)(const GramPackArgs& args);
  void (*add_block)(const GramBlockArgs& args);
  void (*add_block_pairs)(const GramBlockArgs& args);  // null unless `pairs`
};

QUANTMILL_DECLARE_ISA_TABLE(GramKernels, kGramKernels);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_GRAM_KERNELS_H_
