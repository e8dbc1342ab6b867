// The part of the CUDA runtime that the backend uses. Two definitions: runtime.cu, and
// tests/support/cuda_host/runtime.cc for the host build (device.h).
#ifndef QUANTMILL_KERNELS_CUDA_RUNTIME_H_
#define QUANTMILL_KERNELS_CUDA_RUNTIME_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <string>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "tests/support/cuda_host/emulation.h"
#endif

#include "kernels/ops.h"

namespace quantmill::QUANTMILL_CUDA {

struct DeviceInfo {
  std::string name;            // "NVIDIA H200"
  int compute_capability = 0;  // 90
  int multiprocessors = 0;
  int64_t memory = 0;           // bytes
  int64_t memory_overhead = 0;  // of it, what driver and libraries take
};

// The first device that this build has kernels for, made current. Throws Error(kEnvironment) saying
// what is missing: driver, device, or kernels for its architecture.
DeviceInfo OpenDevice();

// Device memory, 256-byte aligned. Throws Error(kEnvironment), saying how much there is. size 0
// gives a pointer that may be freed and not read.
void* AllocateDevice(int64_t bytes);
void FreeDevice(void* memory) noexcept;

class CopyQueue;

// The queue behind an Exec of this backend, with the library handles that belong to it. Used by one
// host thread at a time.
class DeviceStream final : public Stream {
 public:
  DeviceStream();
  ~DeviceStream() override;
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;

  // An earlier kernel that failed is found here: Check.
  void Synchronize() override;

  // `rows` rows of `row_bytes` bytes, `pitch` bytes apart on either side. Host memory is pageable:
  // toward the device it is staged before the call returns, and may be reused then (upload.h is
  // faster where there is much); toward the host the call waits.
  void CopyToDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                    int64_t row_bytes, int64_t rows);
  void CopyToHost(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                  int64_t row_bytes, int64_t rows);
  void CopyOnDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                    int64_t row_bytes, int64_t rows);
  void ZeroOnDevice(void* to, int64_t pitch, int64_t row_bytes, int64_t rows);

  // For uploads that run beside what is on this stream; made at the first call.
  CopyQueue& uploads();

  // Libraries' handles (blas.h), defined where they are used.
  struct Libraries;
  Libraries& libraries() { return *libraries_; }

#ifdef __CUDACC__
  cudaStream_t handle() const { return handle_; }

 private:
  cudaStream_t handle_ = nullptr;
#else
  void RunGrid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);

 private:
#endif
  std::unique_ptr<Libraries> libraries_;
  std::unique_ptr<CopyQueue> uploads_;
};

// A second queue of the device: copies from page-locked host memory, which lies in slots that take
// turns. A slot is given out when its last copy is done, so it cannot be written too early. Used by
// one host thread at a time.
class CopyQueue {
 public:
  static constexpr int kSlots = 2;
  static const int64_t kSlotBytes;

  // Throws Error(kEnvironment) where memory cannot be locked.
  CopyQueue();
  // Waits for all copies.
  ~CopyQueue();
  CopyQueue(const CopyQueue&) = delete;
  CopyQueue& operator=(const CopyQueue&) = delete;

  // The next slot, kSlotBytes: waits until it may be written.
  std::byte* NextSlot();
  // Enqueues a copy of `rows` rows of `row_bytes` bytes, which lie one after another in the slot
  // that NextSlot gave last, to device memory.
  void CopySlot(void* to, int64_t to_pitch, int64_t row_bytes, int64_t rows);
  // Copies that follow wait for what is on `stream` now.
  void StartAfter(DeviceStream& stream);
  // What is put on `stream` from now on waits for the copies so far.
  void FinishBefore(DeviceStream& stream);

 private:
  struct Queue;
  std::unique_ptr<Queue> queue_;
};

inline DeviceStream& StreamOf(Exec& exec) { return static_cast<DeviceStream&>(exec.stream); }

#ifdef __CUDACC__
// A call that fails because of a bug (or a broken device): Check.
void CheckCuda(cudaError_t result,
               const std::source_location& location = std::source_location::current());
#endif

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_RUNTIME_H_
