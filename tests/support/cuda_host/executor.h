// Runs CUDA kernels on a CPU: each thread of a block is a fiber, blocks run one after another on
// the calling thread. It finds what a GPU would answer with a wrong number or a hang, and aborts
// (Check):
//  * two threads that touch an element of shared memory without a barrier between them, one writing
//  * an index outside a shared array
//  * threads that wait at different barriers, or wait for threads that have returned
// Accesses outside global memory are found by the address sanitizer.
//
// Within a block, threads run in ascending order in even blocks and in descending order in odd
// ones, so that code which relies on an order does not pass.
#ifndef QUANTMILL_TESTS_SUPPORT_CUDA_HOST_EXECUTOR_H_
#define QUANTMILL_TESTS_SUPPORT_CUDA_HOST_EXECUTOR_H_

#include <cstddef>
#include <cstdint>
#include <functional>

#include "tests/support/cuda_host/shared_shadow.h"

// As CUDA's own.
struct dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
};

namespace quantmill::cuda_host {

// Of the thread that runs now; set by the executor at each switch.
struct ThreadIndices {
  dim3 thread_index;
  dim3 block_index;
  dim3 block_size;
  dim3 grid_size;
};
extern thread_local ThreadIndices indices;

// One-dimensional blocks. `thread` is called once for each thread of the grid. Not reentrant.
void RunGrid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);

// ---- for the threads of a running kernel ----

void SyncThreads();
// A barrier of the warp's threads.
void SyncWarp();
// Every lane hands over `size` bytes (at most 64) and gets those of all lanes: lane l's at l * 64,
// until its next call.
const std::byte* ExchangeInWarp(const void* mine, size_t size);
// Lanes of the calling thread's warp: 32, or fewer in the last warp of a block.
int LanesInWarp();

// The shared memory of the block that runs now.
extern thread_local SharedShadow* block_memory;

}  // namespace quantmill::cuda_host

#endif  // QUANTMILL_TESTS_SUPPORT_CUDA_HOST_EXECUTOR_H_
