// The kernels behind AddGram, one table per instruction set.
//
// A chunk of tokens is packed into panels of `panel_cols` columns of x; the last one is padded with
// zeros. A panel is cut into steps, each of `parts` * panel_cols elements of 4 bytes: one token in
// F32, or two tokens as pairs of BF16 (zeros past the end).
#ifndef QUANTMILL_KERNELS_CPU_GRAM_KERNELS_H_
#define QUANTMILL_KERNELS_CPU_GRAM_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace quantmill::cpu {

struct GramPackArgs {
  const void* x = nullptr;  // [tokens][cols] F32 or BF16
  int64_t x_row = 0;        // elements between tokens
  const void* minus =
      nullptr;  // like x: x - minus is packed (rounded to BF16 if they are); or null
  int64_t minus_row = 0;
  int64_t tokens = 0;  // steps past them are zero, up to a multiple of step_unit
  int cols = 0;        // <= panel_cols
  // As the right factor, and as the left one, which differs where `transposed` alone; null: not
  // wanted.
  float* right = nullptr;
  float* left = nullptr;
};

// gram[i, j] += sum over the chunk of a[t, i] * b[t, j], for i < rows, j < cols and, on the
// diagonal, i <= j alone.
struct GramBlockArgs {
  const float* a = nullptr;  // packed as a left factor
  const float* b = nullptr;  // packed as a right factor
  bool diagonal = false;     // they are the same panel of the same matrix
  int64_t steps = 0;         // a multiple of step_unit
  int rows = 0;
  int cols = 0;
  float* sums = nullptr;  // scratch, [panel_cols][panel_cols]
  float* gram = nullptr;
  int64_t gram_row = 0;
};

// How x of one type is packed and multiplied.
struct GramForm {
  int step_tokens = 1;
  int step_unit = 1;
  int parts = 1;            // BF16 numbers whose sum is the F32 one, where it is multiplied as such
  bool transposed = false;  // a left factor is packed otherwise than a right one
  void (*pack)(const GramPackArgs& args);
  void (*add_block)(const GramBlockArgs& args);
};

struct GramKernels {
  int panel_cols = 0;
  GramForm f32;
  GramForm bf16;
};

QUANTMILL_DECLARE_ISA_TABLE(GramKernels, kGramKernels);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_GRAM_KERNELS_H_
