// Which code may touch device memory on the host executor: kernels, library calls and copies. Under
// the address sanitizer it is poisoned for everything else, so that a layer which reads device
// memory as if it were its own is found without a GPU.
#ifndef QUANTMILL_TESTS_SUPPORT_CUDA_HOST_DEVICE_MEMORY_H_
#define QUANTMILL_TESTS_SUPPORT_CUDA_HOST_DEVICE_MEMORY_H_

#include <mutex>

namespace quantmill::cuda_host {

// While one lives on this thread, device memory may be touched. They nest. One thread at a time has
// access: others wait, as kernels of a full device do.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;

 private:
  std::lock_guard<std::recursive_mutex> alone_;
};

}  // namespace quantmill::cuda_host

#endif  // QUANTMILL_TESTS_SUPPORT_CUDA_HOST_DEVICE_MEMORY_H_
