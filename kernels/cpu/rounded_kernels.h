// The kernels behind MatMul with rounded inputs (ops.h), one table per instruction set.
//
// Inputs are cut into segments: runs in which neither a scale of the weight nor one of the input
// changes. A segment is padded to whole steps of 4 bytes, so each starts at a step of its own.
// Numbers (E4M3 inputs, any weight code) are multiplied by the tiles of matmul_kernels.h: as pairs
// of BF16, which hold them exactly, or as F32. Integers have a tile of their own, for which a
// weight is stored as quads, [quads][panel_cols][4]: four inputs of one output together, zero past
// the segment's end.
#ifndef QUANTMILL_KERNELS_CPU_ROUNDED_KERNELS_H_
#define QUANTMILL_KERNELS_CPU_ROUNDED_KERNELS_H_

#include <cstdint>

#include "kernels/core/block_rounding.h"
#include "kernels/cpu/isa.h"
#include "kernels/cpu/matmul_kernels.h"

namespace quantmill::cpu {

// What a step of rounded inputs holds: four codes + kByteOffset, two codes, two BF16, or a float.
enum class StepType : uint8_t { kBytes, kShorts, kPairs, kFloats };

// The instruction that multiplies bytes takes an unsigned factor.
inline constexpr int kByteOffset = 128;

// The inputs of one token.
struct TokenInputs {
  const void* data = nullptr;  // [in] F32 or BF16
  bool bf16 = false;           // type of data
};

// One token: rounded as ops.h says.
struct RoundArgs {
  TokenInputs x;
  int64_t in = 0;
  bool dynamic = true;
  float scale = 0;            // static alone
  int zero = 0;               // static integers alone
  int64_t group = 0;          // inputs that share a scale
  int64_t segment = 0;        // inputs; divides group where group < in
  int64_t segment_steps = 0;  // of 4 bytes
  StepType type = StepType::kFloats;
  void* steps = nullptr;    // [segments][segment_steps]
  float* scales = nullptr;  // [groups]; NaN where a value was NaN
  int32_t* sums = nullptr;  // [segments]: of code - zero; integers alone, or null
};

// One token whose groups have rounded scales.
struct BlockRoundArgs {
  TokenInputs x;
  int64_t in = 0;
  BlockRounding rounding;
  void* out = nullptr;  // [in], of the type of x
};

// out[r, c] (+)= (P * w_scales[c]) * x_scales[r], with P the sum of a segment.
struct FoldArgs {
  int rows = 0;
  const float* sums = nullptr;  // [rows][panel_cols]: F32, or the bits of I32
  bool integers = false;
  // Integers alone: P = sum - offsets[c] - zeros[c] * x_sums[r].
  const int32_t* offsets = nullptr;
  const int32_t* zeros = nullptr;  // or null
  const int32_t* x_sums = nullptr;
  int64_t x_sums_row = 0;
  const float* w_scales = nullptr;  // [panel_cols]
  const float* x_scales = nullptr;
  int64_t x_scales_row = 0;
  bool first = false;    // store; otherwise add
  float* out = nullptr;  // [rows][panel_cols]; may be sums
};

struct RoundedKernels {
  StepType integer_step = StepType::kShorts;  // kBytes or kShorts

  void (*round)(const RoundArgs& args);
  void (*round_blocks)(const BlockRoundArgs& args);
  // Like MatMulKernels::tile, on steps of integers; sums are the bits of I32 and wrap.
  void (*tile)(const TileArgs& args);
  // Quads as two steps of kShorts each; null under kBytes, whose steps they are.
  void (*unpack)(const int8_t* quads, int64_t count, int16_t* steps);
  void (*fold)(const FoldArgs& args);
};

QUANTMILL_DECLARE_ISA_TABLE(RoundedKernels, kRoundedKernels);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_ROUNDED_KERNELS_H_
