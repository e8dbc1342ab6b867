// Device memory of one backend, counted and held to a limit.
#ifndef QUANTMILL_KERNELS_CUDA_CUDA_MEMORY_H_
#define QUANTMILL_KERNELS_CUDA_CUDA_MEMORY_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "kernels/core/matrix.h"

namespace quantmill::QUANTMILL_CUDA {

// All that a backend allocates comes from here. Copies are the same memory; tensors may outlive
// them.
class CudaMemory {
 public:
  // overhead: counted as taken from the start.
  explicit CudaMemory(int64_t overhead) : account_(std::make_shared<Account>()) {
    account_->held = overhead;
    account_->peak = overhead;
  }

  // Uninitialized. Throws Error(kEnvironment) where it would pass the limit, or there is none left.
  Tensor Allocate(DType dtype, int64_t rows, int64_t cols) const;
  // Bytes that may be taken at once; 0: no limit but the device's.
  void Limit(int64_t bytes) { account_->limit = bytes; }
  int64_t peak() const { return account_->peak; }  // most bytes taken at once

 private:
  struct Account {
    std::atomic<int64_t> held = 0;
    std::atomic<int64_t> peak = 0;
    std::atomic<int64_t> limit = 0;
  };

  std::shared_ptr<Account> account_;
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_CUDA_MEMORY_H_
