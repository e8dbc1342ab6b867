// Device memory of one backend, counted and held to a limit.
#ifndef QUANTMILL_KERNELS_CUDA_CUDA_MEMORY_H_
#define QUANTMILL_KERNELS_CUDA_CUDA_MEMORY_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>

#include "kernels/core/matrix.h"
#include "kernels/cuda/runtime.h"

namespace quantmill::QUANTMILL_CUDA {

// All that a backend allocates comes from here. Copies are the same memory; tensors may outlive
// them. May be used from several threads.
//
// What a tensor gives back is kept, and given out again to one of the same size (the blocks of a
// model ask for the same sizes over and over): the device's own allocation would wait for all that
// is on it, twice. The kept memory and the tensors together are never more than the tensors were at
// their most, so what is kept costs no budget.
//
// A tensor may be destroyed while kernels that use it are on a stream of streams(); who gets its
// memory, on whichever of these, runs after them.
class CudaMemory {
 public:
  // overhead: counted as taken from the start.
  explicit CudaMemory(int64_t overhead);

  // Uninitialized. Throws Error(kEnvironment) where it would pass the limit, or there is none left.
  Tensor Allocate(DType dtype, int64_t rows, int64_t cols) const;
  // Bytes that may be taken at once; 0: no limit but the device's.
  void Limit(int64_t bytes) { pool_->Limit(bytes); }
  int64_t peak() const { return pool_->peak(); }  // most bytes taken at once
  // Those that work on this memory.
  const std::shared_ptr<StreamGroup>& streams() const { return streams_; }

 private:
  class Pool {
   public:
    Pool(int64_t overhead, std::shared_ptr<StreamGroup> streams)
        : streams_(std::move(streams)), taken_(overhead), peak_(overhead) {}
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    void* Take(int64_t bytes);
    void GiveBack(void* memory, int64_t bytes);
    void Limit(int64_t bytes);
    int64_t peak();

   private:
    struct Kept {
      void* memory;
      int64_t bytes;
      StreamGroup::Moment left;  // when its tensor was destroyed
    };

    void CheckLimit(int64_t bytes) const;
    void* TakeKept(int64_t bytes);  // null: there is none of this size
    void* TakeNew(int64_t bytes);
    // Frees what was kept for the longest time, until no more than `bytes` are kept.
    void FreeKept(int64_t bytes);

    std::mutex mutex_;
    std::shared_ptr<StreamGroup> streams_;
    std::deque<Kept> kept_;  // in the order in which it was given back
    int64_t kept_bytes_ = 0;
    int64_t taken_;
    int64_t peak_;
    int64_t limit_ = 0;
  };

  std::shared_ptr<StreamGroup> streams_;
  std::shared_ptr<Pool> pool_;  // lives until the last tensor is gone
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_CUDA_MEMORY_H_
