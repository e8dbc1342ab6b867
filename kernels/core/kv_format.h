// How the paged cache keeps elements. Alone in its file: the kernels that are compiled for each
// instruction set include no inline functions of the program.
#ifndef QUANTMILL_KERNELS_CORE_KV_FORMAT_H_
#define QUANTMILL_KERNELS_CORE_KV_FORMAT_H_

#include <cstdint>

namespace quantmill {

enum class KvFormat : uint8_t { kF32, kBF16, kFp8, kInt8, kInt4 };

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_CORE_KV_FORMAT_H_
