// The kernels behind MatMul, one table per instruction set, and the panels that they read.
//
// A weight [out, in] is stored as panels of `panel_cols` outputs; the last one is padded with
// zeros. Within a panel, the values of one input i for all its outputs lie together:
//   kF32, kF16, kBF16   [in][panel_cols] of that type
//   kBF16Pairs          [ceil(in / 2)][panel_cols][2]: inputs 2i and 2i + 1 (zero past the end)
//   kI8, kF8            [in][panel_cols] codes: integers, or the bits of E4M3 numbers (none is NaN)
//   kI4, kF4, kIq4Nl    [in][panel_cols / 2] bytes: output j in the low half of byte j, output
//                       j + panel_cols / 2 in the high half: code + 8, the bits of E2M1
//                       numbers, or the place among kIq4NlLevels
#ifndef QUANTMILL_KERNELS_CPU_MATMUL_KERNELS_H_
#define QUANTMILL_KERNELS_CPU_MATMUL_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace quantmill::cpu {

enum class PanelType : uint8_t { kF32, kF16, kBF16, kBF16Pairs, kI8, kI4, kF8, kF4, kIq4Nl };

// One panel of a weight.
struct Panel {
  PanelType type = PanelType::kF32;
  PanelType scale_type = PanelType::kF32;  // kF32, kF16 or kBF16
  // Codes alone: (code - zero) * scale is rounded to BF16 (the weights of Compute::kBF16).
  bool round_to_bf16 = false;
  int64_t group_size = 0;         // codes alone
  const void* values = nullptr;   // as above
  const void* scales = nullptr;   // [groups][panel_cols]
  const int8_t* zeros = nullptr;  // [groups][panel_cols], or null
};

// sums[r, c] (+)= sum_k x[r, k] * w[k, c], one chain per element with k ascending.
struct TileArgs {
  int rows = 0;  // 1 .. tile_rows
  const void* x =
      nullptr;        // row r at x + r * x_row, in words of 4 bytes; or as split_row writes it
  int64_t x_row = 0;  // in words
  const void* w = nullptr;  // [steps][panel_cols], in words; as `unpack` writes it
  int w_parts = 1;          // of it, where the form has parts
  int64_t steps = 0;
  bool resume = false;          // continue from sums; otherwise from zero
  float* sums = nullptr;        // [rows][panel_cols]
  const void* ahead = nullptr;  // `steps` cache lines that will be needed soon
};

// y = sums + bias, or y += sums + bias.
struct StoreArgs {
  int rows = 0;
  int64_t cols = 0;             // of the panel that exist in y
  const float* sums = nullptr;  // [rows][panel_cols]
  const float* bias = nullptr;  // [cols], or null
  bool add = false;
  bool bf16 = false;  // y is BF16 (and add is false)
  void* y = nullptr;  // row r at y + r * y_row
  int64_t y_row = 0;  // in elements
};

// How one Compute multiplies. A step is one word of 4 bytes per row of x and column of w: a float,
// or a pair of BF16 numbers; or as many words as the number has parts.
struct MatMulForm {
  int tile_rows = 0;    // of x that `tile` takes at a time
  int step_inputs = 1;  // 1: floats; 2: pairs
  int step_unit = 1;    // steps come in multiples of it, the last ones zero
  int parts = 1;        // words of a step of x

  // Null: the instruction set does not have the form.
  void (*tile)(const TileArgs& args) = nullptr;
  // Inputs [begin, begin + count) of a panel as w of `tile`; begin is even, and what a last step
  // lacks is zero. Not of kBF16Pairs.
  void (*unpack)(const Panel& panel, int64_t begin, int64_t count, void* w) = nullptr;
  // `tile` on all inputs of a panel that would have to be unpacked, widened in registers instead:
  // for a few rows the detour through memory costs more than it saves. rows <= direct_rows; x is
  // F32, x_row in elements. Null where it would sum in another order.
  void (*direct)(const Panel& panel, int64_t in, int rows, const void* x, int64_t x_row,
                 float* sums) = nullptr;
  bool direct_pairs = false;  // its x is BF16, and in and group_size are even

  // Where numbers are split into parts (null otherwise):
  // as many as hold all weights of the panel;
  int (*weight_parts)(const Panel& panel) = nullptr;
  // x, [count] F32, as the words that `tile` reads, [ceil(count /
  // 32)][parts][tile_rows][step_unit], those of the row at words[0] being its first ones; zero past
  // the end;
  void (*split_row)(const float* x, int64_t count, float* words) = nullptr;
  // whether one of [rows][panel_cols] sums is NaN, as it may be although F32 arithmetic gives an
  // infinity or a number.
  bool (*has_nan)(const float* sums, int rows) = nullptr;

  bool splits() const { return split_row != nullptr; }
  int64_t Steps(int64_t inputs) const {
    const int64_t steps = (inputs + step_inputs - 1) / step_inputs;
    return (steps + step_unit - 1) / step_unit * step_unit;
  }
};

struct MatMulKernels {
  int panel_cols = 0;
  int direct_rows = 0;
  MatMulForm f32;
  MatMulForm bf16;    // without it, Compute::kBF16 runs as F32 on BF16 values
  MatMulForm bf16x3;  // without it, Compute::kBF16x3 runs as F32

  void (*store)(const StoreArgs& args);

  // out[i] = scale * row[i]; type: kF32, kF16 or kBF16.
  void (*widen)(PanelType type, const void* row, float scale, int64_t count, float* out);
};

QUANTMILL_DECLARE_ISA_TABLE(MatMulKernels, kMatMulKernels);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_MATMUL_KERNELS_H_
