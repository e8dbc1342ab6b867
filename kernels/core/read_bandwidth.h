// What a loop that only reads memory reaches: the bound of work that reads each weight once.
#ifndef QUANTMILL_KERNELS_CORE_READ_BANDWIDTH_H_
#define QUANTMILL_KERNELS_CORE_READ_BANDWIDTH_H_

#include <cstdint>

#include "kernels/core/thread_pool.h"

namespace quantmill {

// Bytes a second of all threads of `pool` together reading a block of `bytes` over and over, the
// fastest of `rounds` passes. A block that fits into a cache is read from there, as weights of that
// size are. Allocates the block. REQUIRES: bytes, rounds >= 1.
double ReadBandwidth(ThreadPool& pool, int64_t bytes, int rounds);

}  // namespace quantmill

#endif  // QUANTMILL_KERNELS_CORE_READ_BANDWIDTH_H_
