// The part of the CUDA runtime that the backend uses. Two definitions: runtime.cu, and
// tests/support/cuda_host/runtime.cc for the host build (device.h).
#ifndef QUANTMILL_KERNELS_CUDA_RUNTIME_H_
#define QUANTMILL_KERNELS_CUDA_RUNTIME_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <source_location>
#include <string>
#include <vector>

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
// what is missing: driver, device, kernels for its architecture, or a library.
DeviceInfo OpenDevice();

// Device memory, 256-byte aligned. Throws Error(kEnvironment), saying how much there is. size 0
// gives a pointer that may be freed and not read.
void* AllocateDevice(int64_t bytes);
// Waits for what is on the device.
void FreeDevice(void* memory) noexcept;
// Memory that nobody owns for a while, though it is not freed, tells so: the host executor then
// finds who touches it, and gives it other contents. Nothing on a GPU.
void HideDevice(void* memory);
void ShowDevice(void* memory);

// Page-locked host memory, which copies need not be staged from or to. Throws Error(kEnvironment)
// where memory cannot be locked.
void* AllocateLocked(int64_t bytes);
void FreeLocked(void* memory) noexcept;
bool IsLocked(const void* memory);

class CopyQueue;
class StreamGroup;

// The queue behind an Exec of this backend, with the library handles that belong to it. Used by one
// host thread at a time.
class DeviceStream final : public Stream {
 public:
  // group: that of the memory it works on, shared because streams and memory may outlive each
  // other.
  explicit DeviceStream(std::shared_ptr<StreamGroup> group);
  // Waits for what is on it.
  ~DeviceStream() override;
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;

  // An earlier kernel that failed is found here: Check.
  void Synchronize() override;
  void RunAfter(Stream& other) override;

  // `rows` rows of `row_bytes` bytes, `pitch` bytes apart on either side. Pageable host memory is
  // staged before the call returns, and may be reused then (upload.h is faster where there is
  // much); page-locked one is read until the stream is synchronized. Toward the host CopyToHost
  // waits, and CopyToHostLater needs page-locked memory.
  void CopyToDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                    int64_t row_bytes, int64_t rows);
  void CopyToHost(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                  int64_t row_bytes, int64_t rows);
  void CopyToHostLater(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                       int64_t row_bytes, int64_t rows);
  void CopyOnDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                    int64_t row_bytes, int64_t rows);
  void ZeroOnDevice(void* to, int64_t pitch, int64_t row_bytes, int64_t rows);

  // For uploads that run beside what is on this stream; made at the first call.
  CopyQueue& uploads();

  // Libraries' handles (blas.h), defined where they are used; made at the first call.
  struct Libraries;
  Libraries& libraries();

#ifdef __CUDACC__
  cudaStream_t handle() const { return handle_; }

 private:
  cudaStream_t handle_ = nullptr;
#else
  void RunGrid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& thread);
  // Does what may wait until something waits for it: copies of page-locked memory.
  void Settle();

 private:
  using Work = std::function<void()>;
  std::deque<Work> late_;
#endif
  std::shared_ptr<StreamGroup> group_;
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

// The streams of a backend together, so that memory can go from one of them to any other. May be
// called from any thread.
class StreamGroup {
 public:
  // What was on each stream at one time. Move-only.
  class Moment {
   public:
    Moment();
    Moment(Moment&&) noexcept;
    Moment& operator=(Moment&&) noexcept;
    ~Moment();

   private:
    friend class StreamGroup;
    struct Events;
    std::unique_ptr<Events> events_;
  };

  Moment Now();
  // What is put on any of the streams from now on runs after what was on all of them then.
  void RunAfter(const Moment& moment);

  void Add(DeviceStream& stream) {
    const std::lock_guard lock(mutex_);
    streams_.push_back(&stream);
  }
  void Remove(DeviceStream& stream) {
    const std::lock_guard lock(mutex_);
    std::erase(streams_, &stream);
  }

 private:
  std::mutex mutex_;
  std::vector<DeviceStream*> streams_;
};

inline DeviceStream& StreamOf(Exec& exec) { return static_cast<DeviceStream&>(exec.stream); }

#ifdef __CUDACC__
// A call that fails because of a bug (or a broken device): Check.
void CheckCuda(cudaError_t result,
               const std::source_location& location = std::source_location::current());
#endif

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_RUNTIME_H_
