// kernels/cuda/runtime.h on the host (device memory: device_memory.cc).
#include "kernels/cuda/runtime.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <utility>
#include <vector>

#include "tests/support/cuda_host/device_memory.h"

namespace quantmill::QUANTMILL_CUDA {

struct DeviceStream::Libraries {};

DeviceInfo OpenDevice() {
  constexpr int64_t kMemory = int64_t{4} << 30;
  return {"host executor", 90, 4, kMemory, 0};
}

DeviceStream::DeviceStream(std::shared_ptr<StreamGroup> group) : group_(std::move(group)) {
  group_->Add(*this);
}
DeviceStream::~DeviceStream() {
  Settle();
  group_->Remove(*this);
}

void DeviceStream::Synchronize() { Settle(); }

void DeviceStream::RunAfter(Stream& other) { static_cast<DeviceStream&>(other).Settle(); }

void DeviceStream::Settle() {
  const DeviceAccess access;
  while (!late_.empty()) {
    const Work first = std::move(late_.front());
    late_.pop_front();
    first();
  }
}

// Streams run at once what is put on them, except for copies of page-locked memory: these happen
// before anything that a GPU could order after them.
struct StreamGroup::Moment::Events {};

StreamGroup::Moment::Moment() = default;
StreamGroup::Moment::Moment(Moment&&) noexcept = default;
StreamGroup::Moment& StreamGroup::Moment::operator=(Moment&&) noexcept = default;
StreamGroup::Moment::~Moment() = default;

StreamGroup::Moment StreamGroup::Now() {
  const std::lock_guard lock(mutex_);
  for (DeviceStream* stream : streams_) stream->Settle();
  return {};
}

void StreamGroup::RunAfter(const Moment& /*moment*/) {}  // which has passed

namespace {

void CopyRows(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t row_bytes,
              int64_t rows) {
  if (row_bytes == 0) return;  // where null pointers are allowed, memcpy's are not
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(static_cast<std::byte*>(to) + r * to_pitch,
                static_cast<const std::byte*>(from) + r * from_pitch,
                static_cast<size_t>(row_bytes));
  }
}

}  // namespace

void DeviceStream::CopyOnDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                                int64_t row_bytes, int64_t rows) {
  const DeviceAccess access;
  Settle();
  CopyRows(to, to_pitch, from, from_pitch, row_bytes, rows);
}

// The side of the host is copied without access to the device, so that the address sanitizer finds
// memory of the device there.
void DeviceStream::CopyToDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                                int64_t row_bytes, int64_t rows) {
  if (IsLocked(from)) {
    const DeviceAccess access;
    late_.emplace_back([=] { CopyRows(to, to_pitch, from, from_pitch, row_bytes, rows); });
    return;
  }
  std::vector<std::byte> staging(static_cast<size_t>(row_bytes * rows));
  CopyRows(staging.data(), row_bytes, from, from_pitch, row_bytes, rows);
  CopyOnDevice(to, to_pitch, staging.data(), row_bytes, row_bytes, rows);
}

void DeviceStream::CopyToHost(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                              int64_t row_bytes, int64_t rows) {
  std::vector<std::byte> staging(static_cast<size_t>(row_bytes * rows));
  CopyOnDevice(staging.data(), row_bytes, from, from_pitch, row_bytes, rows);
  CopyRows(to, to_pitch, staging.data(), row_bytes, row_bytes, rows);
}

void DeviceStream::CopyToHostLater(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                                   int64_t row_bytes, int64_t rows) {
  Check(IsLocked(to), "CopyToHostLater: pageable memory");
  const DeviceAccess access;
  late_.emplace_back([=] { CopyRows(to, to_pitch, from, from_pitch, row_bytes, rows); });
}

void DeviceStream::ZeroOnDevice(void* to, int64_t pitch, int64_t row_bytes, int64_t rows) {
  const DeviceAccess access;
  Settle();
  if (row_bytes == 0) return;
  for (int64_t r = 0; r < rows; ++r) {
    std::memset(static_cast<std::byte*>(to) + r * pitch, 0, static_cast<size_t>(row_bytes));
  }
}

void DeviceStream::RunGrid(dim3 grid, dim3 block, size_t shared_bytes,
                           const std::function<void()>& thread) {
  const DeviceAccess access;
  Settle();
  cuda_host::RunGrid(grid, block, shared_bytes, thread);
}

CopyQueue& DeviceStream::uploads() {
  if (uploads_ == nullptr) uploads_ = std::make_unique<CopyQueue>();
  return *uploads_;
}

// Small, so that the tests' matrices take many turns.
const int64_t CopyQueue::kSlotBytes = 4096;

// Copies run as late as they may: when their slot is wanted again, or the stream waits for them.
struct CopyQueue::Queue {
  struct Copy {
    int slot;
    void* to;
    int64_t to_pitch;
    int64_t row_bytes;
    int64_t rows;
  };
  std::vector<std::byte> memory = std::vector<std::byte>(static_cast<size_t>(kSlots * kSlotBytes));
  std::deque<Copy> waiting;
  int turn = 0;

  std::byte* Slot(int slot) { return memory.data() + slot * kSlotBytes; }
  void RunFirst() {
    const DeviceAccess access;
    const Copy copy = waiting.front();
    waiting.pop_front();
    CopyRows(copy.to, copy.to_pitch, Slot(copy.slot), copy.row_bytes, copy.row_bytes, copy.rows);
  }
};

CopyQueue::CopyQueue() : queue_(std::make_unique<Queue>()) {}
CopyQueue::~CopyQueue() {
  while (!queue_->waiting.empty()) queue_->RunFirst();
}

std::byte* CopyQueue::NextSlot() {
  queue_->turn = (queue_->turn + 1) % kSlots;
  const auto holds_slot = [&](const Queue::Copy& copy) { return copy.slot == queue_->turn; };
  while (std::ranges::any_of(queue_->waiting, holds_slot)) queue_->RunFirst();
  return queue_->Slot(queue_->turn);
}

void CopyQueue::CopySlot(void* to, int64_t to_pitch, int64_t row_bytes, int64_t rows) {
  queue_->waiting.push_back({queue_->turn, to, to_pitch, row_bytes, rows});
}

void CopyQueue::StartAfter(DeviceStream& stream) { stream.Settle(); }

void CopyQueue::FinishBefore(DeviceStream& /*stream*/) {
  while (!queue_->waiting.empty()) queue_->RunFirst();
}

}  // namespace quantmill::QUANTMILL_CUDA
