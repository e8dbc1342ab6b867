// The kernels behind MatMul, one table per instruction set, and the panels that they read.
//
// A weight [out, in] is stored as panels of `panel_cols` outputs; the last one is padded with
// zeros. Within a panel, the values of one input i for all its outputs lie together:
//   kF32, kF16, kBF16   [in][panel_cols] of that type
//   kBF16Pairs          [ceil(in / 2)][panel_cols][2]: inputs 2i and 2i + 1 (zero past the end)
//   kI8, kF8            [in][panel_cols] codes: integers, or the bits of E4M3 numbers (none is NaN)
//   kI4, kF4            [in][panel_cols / 2] bytes: output j in the low half of byte j, output
//                       j + panel_cols / 2 in the high half: code + 8, or the bits of E2M1 numbers
#ifndef QUANTMILL_KERNELS_CPU_MATMUL_KERNELS_H_
#define QUANTMILL_KERNELS_CPU_MATMUL_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace quantmill::cpu {

enum class PanelType : uint8_t { kF32, kF16, kBF16, kBF16Pairs, kI8, kI4, kF8, kF4 };

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
  int rows = 0;                 // 1 .. tile_rows, or pair_rows
  const void* x = nullptr;      // row r at x + r * x_row, in steps of 4 bytes
  int64_t x_row = 0;            // in steps
  const void* w = nullptr;      // [steps][panel_cols], in steps of 4 bytes
  int64_t steps = 0;            // F32: k; pairs: ceil(k / 2)
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

// Functions named after pairs are null unless `pairs`.
struct MatMulKernels {
  int tile_rows = 0;  // of x that `tile` takes at a time
  int pair_rows = 0;  // that `tile_pairs` does
  int panel_cols = 0;
  int direct_rows = 0;
  bool pairs = false;  // otherwise Compute::kBF16 runs as F32 on BF16 values

  void (*tile)(const TileArgs& args);
  void (*tile_pairs)(const TileArgs& args);

  // Inputs [begin, begin + count) of a panel as w of `tile`: F32 [count][panel_cols].
  void (*unpack)(const Panel& panel, int64_t begin, int64_t count, float* w);
  // As w of `tile_pairs`; begin is even, an odd count is padded with a zero. Codes alone.
  void (*unpack_pairs)(const Panel& panel, int64_t begin, int64_t count, uint16_t* w);

  // `tile` on all inputs of a panel that would have to be unpacked, widened in registers instead:
  // for a few rows the detour through memory costs more than it saves. rows <= direct_rows; x is
  // F32, x_row in elements.
  void (*direct)(const Panel& panel, int64_t in, int rows, const void* x, int64_t x_row,
                 float* sums);
  // Likewise for `tile_pairs`: x is BF16; in and group_size are even. Null where it would sum in
  // another order.
  void (*direct_pairs)(const Panel& panel, int64_t in, int rows, const void* x, int64_t x_row,
                       float* sums);

  void (*store)(const StoreArgs& args);

  // out[i] = scale * row[i]; type: kF32, kF16 or kBF16.
  void (*widen)(PanelType type, const void* row, float scale, int64_t count, float* out);
};

QUANTMILL_DECLARE_ISA_TABLE(MatMulKernels, kMatMulKernels);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_MATMUL_KERNELS_H_
