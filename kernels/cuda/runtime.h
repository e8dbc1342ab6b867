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
  // toward the device it is staged before the call returns, and may be reused then; toward the host
  // the call waits.
  void CopyToDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                    int64_t row_bytes, int64_t rows);
  void CopyToHost(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                  int64_t row_bytes, int64_t rows);
  void CopyOnDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                    int64_t row_bytes, int64_t rows);
  void ZeroOnDevice(void* to, int64_t pitch, int64_t row_bytes, int64_t rows);

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
};

inline DeviceStream& StreamOf(Exec& exec) { return static_cast<DeviceStream&>(exec.stream); }

#ifdef __CUDACC__
// A call that fails because of a bug (or a broken device): Check.
void CheckCuda(cudaError_t result,
               const std::source_location& location = std::source_location::current());
#endif

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_RUNTIME_H_
