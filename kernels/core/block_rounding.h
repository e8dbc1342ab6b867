// How inputs are rounded in groups whose scales are rounded too ("rounded inputs" of ops.h).
#ifndef QUANTMILL_KERNELS_CORE_BLOCK_ROUNDING_H_
#define QUANTMILL_KERNELS_CORE_BLOCK_ROUNDING_H_

#include <cstdint>

namespace quantmill {

// Of InputScheme and a layer's input_scale, what kernels read. No functions: sources that are
// compiled per instruction set include it.
struct BlockRounding {
  bool fp4 = false;         // E2M1 numbers; otherwise E4M3
  bool powers = false;      // scales are powers of two; otherwise E4M3 below `global_scale`
  float global_scale = 1;   // QuantizedLinear::input_scale
  int64_t group_size = 32;  // inputs that share a scale
};

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_CORE_BLOCK_ROUNDING_H_
