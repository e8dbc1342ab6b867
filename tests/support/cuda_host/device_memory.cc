#include "tests/support/cuda_host/device_memory.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>

#include "kernels/cuda/runtime.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#endif

namespace quantmill::QUANTMILL_CUDA {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr bool kGuarded = true;
#else
constexpr bool kGuarded = false;
#endif

constexpr size_t kAlignment = 256;
size_t Rounded(size_t bytes) {
  return std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
}

// Allocations of this thread, and their bytes as they were asked for.
thread_local std::map<void*, size_t> allocations;
thread_local int accesses = 0;

}  // namespace

DeviceAccess::DeviceAccess() {
  if (!kGuarded || accesses++ > 0) return;
  for (const auto& [memory, bytes] : allocations) ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
}

DeviceAccess::~DeviceAccess() {
  if (!kGuarded || --accesses > 0) return;
  for (const auto& [memory, bytes] : allocations) ASAN_POISON_MEMORY_REGION(memory, bytes);
}

void* AllocateDevice(int64_t bytes) {
  const auto asked = static_cast<size_t>(bytes);
  void* memory = std::aligned_alloc(kAlignment, Rounded(asked));
  if (memory == nullptr) throw Error(ErrorCode::kEnvironment, "host executor", "out of memory");
  std::memset(memory, 0xFF, Rounded(asked));  // NaN in every float type
  allocations[memory] = asked;
  ASAN_POISON_MEMORY_REGION(memory, Rounded(asked));
  if (accesses > 0) ASAN_UNPOISON_MEMORY_REGION(memory, asked);
  return memory;
}

void FreeDevice(void* memory) noexcept {
  if (const auto found = allocations.find(memory); found != allocations.end()) {
    ASAN_UNPOISON_MEMORY_REGION(memory, Rounded(found->second));
    allocations.erase(found);
  }
  std::free(memory);
}

}  // namespace quantmill::QUANTMILL_CUDA
