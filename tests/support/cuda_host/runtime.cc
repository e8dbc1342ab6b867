// kernels/cuda/runtime.h on the host (device memory: device_memory.cc).
#include "kernels/cuda/runtime.h"

#include <cstring>

#include "tests/support/cuda_host/device_memory.h"

namespace quantmill::QUANTMILL_CUDA {

struct DeviceStream::Libraries {};

DeviceInfo OpenDevice() {
  constexpr int64_t kMemory = int64_t{4} << 30;
  return {"host executor", 90, 4, kMemory, 0};
}

DeviceStream::DeviceStream() : libraries_(std::make_unique<Libraries>()) {}
DeviceStream::~DeviceStream() = default;

void DeviceStream::Synchronize() {}

void DeviceStream::CopyOnDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                                int64_t row_bytes, int64_t rows) {
  const DeviceAccess access;
  if (row_bytes == 0) return;  // where null pointers are allowed, memcpy's are not
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(static_cast<std::byte*>(to) + r * to_pitch,
                static_cast<const std::byte*>(from) + r * from_pitch,
                static_cast<size_t>(row_bytes));
  }
}

void DeviceStream::CopyToDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                                int64_t row_bytes, int64_t rows) {
  CopyOnDevice(to, to_pitch, from, from_pitch, row_bytes, rows);
}

void DeviceStream::CopyToHost(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                              int64_t row_bytes, int64_t rows) {
  CopyOnDevice(to, to_pitch, from, from_pitch, row_bytes, rows);
}

void DeviceStream::ZeroOnDevice(void* to, int64_t pitch, int64_t row_bytes, int64_t rows) {
  const DeviceAccess access;
  if (row_bytes == 0) return;
  for (int64_t r = 0; r < rows; ++r) {
    std::memset(static_cast<std::byte*>(to) + r * pitch, 0, static_cast<size_t>(row_bytes));
  }
}

void DeviceStream::RunGrid(dim3 grid, dim3 block, size_t shared_bytes,
                           const std::function<void()>& thread) {
  const DeviceAccess access;
  cuda_host::RunGrid(grid, block, shared_bytes, thread);
}

}  // namespace quantmill::QUANTMILL_CUDA
