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

// Of all below.
std::recursive_mutex device;
// Memory that may be touched, and its bytes as they were asked for; and what is hidden.
std::map<void*, size_t> allocations;
std::map<void*, size_t> hidden;
std::map<const void*, size_t> locked;  // of the host
int accesses = 0;

// Contents of no allocation before, to be touched from now on as device memory is.
void Show(void* memory, size_t bytes) {
  ASAN_UNPOISON_MEMORY_REGION(memory, Rounded(bytes));
  std::memset(memory, 0xFF, Rounded(bytes));  // NaN in every float type
  allocations[memory] = bytes;
  ASAN_POISON_MEMORY_REGION(memory, Rounded(bytes));
  if (accesses > 0) ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
}

}  // namespace

DeviceAccess::DeviceAccess() : alone_(device) {
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
  const std::lock_guard lock(device);
  Show(memory, asked);
  return memory;
}

void FreeDevice(void* memory) noexcept {
  const std::lock_guard lock(device);
  for (auto* known : {&allocations, &hidden}) {
    const auto found = known->find(memory);
    if (found == known->end()) continue;
    ASAN_UNPOISON_MEMORY_REGION(memory, Rounded(found->second));
    known->erase(found);
  }
  std::free(memory);
}

void HideDevice(void* memory) {
  const std::lock_guard lock(device);
  const auto node = allocations.extract(memory);
  Check(!node.empty(), "HideDevice: not allocated");
  ASAN_POISON_MEMORY_REGION(memory, Rounded(node.mapped()));
  hidden[memory] = node.mapped();
}

void ShowDevice(void* memory) {
  const std::lock_guard lock(device);
  const auto node = hidden.extract(memory);
  Check(!node.empty(), "ShowDevice: not hidden");
  Show(memory, node.mapped());
}

void* AllocateLocked(int64_t bytes) {
  void* memory = std::aligned_alloc(kAlignment, Rounded(static_cast<size_t>(bytes)));
  if (memory == nullptr) throw Error(ErrorCode::kEnvironment, "host executor", "out of memory");
  const std::lock_guard lock(device);
  locked[memory] = static_cast<size_t>(bytes);
  return memory;
}

void FreeLocked(void* memory) noexcept {
  const std::lock_guard lock(device);
  locked.erase(memory);
  std::free(memory);
}

bool IsLocked(const void* memory) {
  const std::lock_guard lock(device);
  auto after = locked.upper_bound(memory);
  if (after == locked.begin()) return false;
  --after;
  return static_cast<const std::byte*>(memory) <
         static_cast<const std::byte*>(after->first) + after->second;
}

}  // namespace quantmill::QUANTMILL_CUDA
