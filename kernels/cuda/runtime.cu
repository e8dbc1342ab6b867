#include <string>
#include <utility>
#include <vector>

#include "kernels/core/error.h"
#include "kernels/cuda/libraries.h"
#include "kernels/cuda/runtime.h"

namespace quantmill::QUANTMILL_CUDA {
namespace {

constexpr const char* kWhere = "--device cuda";

// Of the context, the code of this build and of the libraries, and the libraries' handles. Assumed,
// on the large side; not measured.
constexpr int64_t kMemoryOverhead = int64_t{640} << 20;

// Asked whether it can run on a device.
__global__ void NothingKernel() {}

[[noreturn]] void ThrowEnvironment(const std::string& what) {
  throw Error(ErrorCode::kEnvironment, kWhere, what);
}

std::string Gigabytes(size_t bytes) {
  const auto hundredths = static_cast<int64_t>(bytes / 10'000'000);
  const int64_t rest = hundredths % 100;
  return std::to_string(hundredths / 100) + (rest < 10 ? ".0" : ".") + std::to_string(rest) + " GB";
}

}  // namespace

void CheckCuda(cudaError_t result, const std::source_location& location) {
  if (result != cudaSuccess) {
    CheckFailed(std::string("CUDA: ") + cudaGetErrorString(result), location);
  }
}

DeviceInfo OpenDevice() {
  int devices = 0;
  const cudaError_t found = cudaGetDeviceCount(&devices);
  if (found != cudaSuccess || devices == 0) {
    int driver = 0;  // 0: there is none, which the runtime calls too old a driver
    const bool has_driver = cudaDriverGetVersion(&driver) == cudaSuccess && driver > 0;
    const std::string reason = !has_driver            ? "there is no NVIDIA driver"
                               : found == cudaSuccess ? "none is visible"
                                                      : cudaGetErrorString(found);
    ThrowEnvironment("no CUDA device can be used: " + reason + "; use --device cpu");
  }
  cudaDeviceProp properties;
  if (const cudaError_t result = cudaGetDeviceProperties(&properties, 0); result != cudaSuccess) {
    ThrowEnvironment(std::string("the CUDA device does not answer: ") + cudaGetErrorString(result));
  }
  const int capability = properties.major * 10 + properties.minor;
  cudaFuncAttributes attributes;
  if (const cudaError_t result = cudaFuncGetAttributes(&attributes, NothingKernel);
      result != cudaSuccess) {
    ThrowEnvironment(std::string(properties.name) + " (sm_" + std::to_string(capability) +
                     ") cannot run this build's kernels: " + cudaGetErrorString(result));
  }
  Functions();  // of the libraries: what is missing is told before work begins
  return {properties.name, capability, properties.multiProcessorCount,
          static_cast<int64_t>(properties.totalGlobalMem), kMemoryOverhead};
}

void* AllocateDevice(int64_t bytes) {
  void* memory = nullptr;
  const cudaError_t result = cudaMalloc(&memory, static_cast<size_t>(bytes));
  if (result == cudaSuccess) return memory;
  size_t free = 0;
  size_t total = 0;
  if (result != cudaErrorMemoryAllocation || cudaMemGetInfo(&free, &total) != cudaSuccess) {
    ThrowEnvironment(std::string("the CUDA device gives no memory: ") + cudaGetErrorString(result));
  }
  cudaGetLastError();  // a refused allocation is not an error of the launches that follow
  ThrowEnvironment("out of GPU memory: " + Gigabytes(static_cast<size_t>(bytes)) + " more asked, " +
                   Gigabytes(free) + " of " + Gigabytes(total) +
                   " are free; a smaller --max-gpu-mem plans for less");
}

void FreeDevice(void* memory) noexcept { cudaFree(memory); }
void HideDevice(void* /*memory*/) {}
void ShowDevice(void* /*memory*/) {}

void* AllocateLocked(int64_t bytes) {
  void* memory = nullptr;
  const cudaError_t result = cudaMallocHost(&memory, static_cast<size_t>(bytes));
  if (result == cudaSuccess) return memory;
  cudaGetLastError();
  ThrowEnvironment("cannot lock " + std::to_string(bytes >> 20) +
                   " MiB of host memory: " + cudaGetErrorString(result));
}

void FreeLocked(void* memory) noexcept { cudaFreeHost(memory); }

bool IsLocked(const void* memory) {
  cudaPointerAttributes attributes;
  CheckCuda(cudaPointerGetAttributes(&attributes, memory));
  return attributes.type == cudaMemoryTypeHost;
}

DeviceStream::DeviceStream(std::shared_ptr<StreamGroup> group) : group_(std::move(group)) {
  CheckCuda(cudaStreamCreateWithFlags(&handle_, cudaStreamNonBlocking));
  group_->Add(*this);
}

DeviceStream::~DeviceStream() {
  uploads_.reset();
  cudaStreamSynchronize(handle_);
  group_->Remove(*this);
  libraries_.reset();
  cudaStreamDestroy(handle_);
}

void DeviceStream::Synchronize() { CheckCuda(cudaStreamSynchronize(handle_)); }

void DeviceStream::RunAfter(Stream& other) {
  cudaEvent_t order = nullptr;
  CheckCuda(cudaEventCreateWithFlags(&order, cudaEventDisableTiming));
  CheckCuda(cudaEventRecord(order, static_cast<DeviceStream&>(other).handle_));
  CheckCuda(cudaStreamWaitEvent(handle_, order));
  CheckCuda(cudaEventDestroy(order));  // when it has happened
}

DeviceStream::Libraries& DeviceStream::libraries() {
  if (libraries_ == nullptr) libraries_ = std::make_unique<Libraries>(handle_);
  return *libraries_;
}

struct StreamGroup::Moment::Events {
  struct Event {
    cudaStream_t stream;
    cudaEvent_t event;
  };
  std::vector<Event> all;
  ~Events() {
    for (const Event& e : all) cudaEventDestroy(e.event);
  }
};

StreamGroup::Moment::Moment() : events_(std::make_unique<Events>()) {}
StreamGroup::Moment::Moment(Moment&&) noexcept = default;
StreamGroup::Moment& StreamGroup::Moment::operator=(Moment&&) noexcept = default;
StreamGroup::Moment::~Moment() = default;

namespace {

bool IsIdle(const DeviceStream& stream) {
  const cudaError_t result = cudaStreamQuery(stream.handle());
  if (result != cudaErrorNotReady) CheckCuda(result);
  cudaGetLastError();  // that work is left is not an error of the launches that follow
  return result == cudaSuccess;
}

}  // namespace

StreamGroup::Moment StreamGroup::Now() {
  const std::lock_guard lock(mutex_);
  Moment moment;
  for (const DeviceStream* stream : streams_) {
    if (IsIdle(*stream)) continue;
    auto& event = moment.events_->all.emplace_back(stream->handle(), nullptr);
    CheckCuda(cudaEventCreateWithFlags(&event.event, cudaEventDisableTiming));
    CheckCuda(cudaEventRecord(event.event, event.stream));
  }
  return moment;
}

void StreamGroup::RunAfter(const Moment& moment) {
  const std::lock_guard lock(mutex_);
  for (const DeviceStream* stream : streams_) {
    for (const Moment::Events::Event& e : moment.events_->all) {
      if (e.stream == stream->handle()) continue;  // it runs in order
      CheckCuda(cudaStreamWaitEvent(stream->handle(), e.event));
    }
  }
}

namespace {

void CopyRows(void* to, int64_t to_pitch, const void* from, int64_t from_pitch, int64_t row_bytes,
              int64_t rows, cudaMemcpyKind kind, cudaStream_t stream) {
  if (row_bytes == 0 || rows == 0) return;
  if (rows == 1 || (to_pitch == row_bytes && from_pitch == row_bytes)) {
    return CheckCuda(
        cudaMemcpyAsync(to, from, static_cast<size_t>(row_bytes * rows), kind, stream));
  }
  CheckCuda(cudaMemcpy2DAsync(to, static_cast<size_t>(to_pitch), from,
                              static_cast<size_t>(from_pitch), static_cast<size_t>(row_bytes),
                              static_cast<size_t>(rows), kind, stream));
}

}  // namespace

void DeviceStream::CopyToDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                                int64_t row_bytes, int64_t rows) {
  CopyRows(to, to_pitch, from, from_pitch, row_bytes, rows, cudaMemcpyHostToDevice, handle_);
}

void DeviceStream::CopyToHost(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                              int64_t row_bytes, int64_t rows) {
  CopyToHostLater(to, to_pitch, from, from_pitch, row_bytes, rows);
  Synchronize();
}

void DeviceStream::CopyToHostLater(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                                   int64_t row_bytes, int64_t rows) {
  CopyRows(to, to_pitch, from, from_pitch, row_bytes, rows, cudaMemcpyDeviceToHost, handle_);
}

void DeviceStream::CopyOnDevice(void* to, int64_t to_pitch, const void* from, int64_t from_pitch,
                                int64_t row_bytes, int64_t rows) {
  CopyRows(to, to_pitch, from, from_pitch, row_bytes, rows, cudaMemcpyDeviceToDevice, handle_);
}

void DeviceStream::ZeroOnDevice(void* to, int64_t pitch, int64_t row_bytes, int64_t rows) {
  if (row_bytes == 0 || rows == 0) return;
  if (rows == 1 || pitch == row_bytes) {
    return CheckCuda(cudaMemsetAsync(to, 0, static_cast<size_t>(row_bytes * rows), handle_));
  }
  CheckCuda(cudaMemset2DAsync(to, static_cast<size_t>(pitch), 0, static_cast<size_t>(row_bytes),
                              static_cast<size_t>(rows), handle_));
}

CopyQueue& DeviceStream::uploads() {
  if (uploads_ == nullptr) uploads_ = std::make_unique<CopyQueue>();
  return *uploads_;
}

// Large enough to keep the bus busy, small enough that the first copy starts soon and no budget of
// host memory feels it.
const int64_t CopyQueue::kSlotBytes = int64_t{4} << 20;

struct CopyQueue::Queue {
  cudaStream_t stream = nullptr;
  std::byte* memory = nullptr;  // [kSlots][kSlotBytes], page-locked
  cudaEvent_t copied[kSlots] = {};
  cudaEvent_t order = nullptr;  // between the two queues
  int turn = 0;
};

CopyQueue::CopyQueue() : queue_(std::make_unique<Queue>()) {
  queue_->memory = static_cast<std::byte*>(AllocateLocked(kSlots * kSlotBytes));
  CheckCuda(cudaStreamCreateWithFlags(&queue_->stream, cudaStreamNonBlocking));
  for (cudaEvent_t& event : queue_->copied) {
    CheckCuda(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  }
  CheckCuda(cudaEventCreateWithFlags(&queue_->order, cudaEventDisableTiming));
}

CopyQueue::~CopyQueue() {
  cudaStreamSynchronize(queue_->stream);
  for (cudaEvent_t event : queue_->copied) cudaEventDestroy(event);
  cudaEventDestroy(queue_->order);
  cudaStreamDestroy(queue_->stream);
  FreeLocked(queue_->memory);
}

std::byte* CopyQueue::NextSlot() {
  queue_->turn = (queue_->turn + 1) % kSlots;
  CheckCuda(cudaEventSynchronize(queue_->copied[queue_->turn]));
  return queue_->memory + queue_->turn * kSlotBytes;
}

void CopyQueue::CopySlot(void* to, int64_t to_pitch, int64_t row_bytes, int64_t rows) {
  CopyRows(to, to_pitch, queue_->memory + queue_->turn * kSlotBytes, row_bytes, row_bytes, rows,
           cudaMemcpyHostToDevice, queue_->stream);
  CheckCuda(cudaEventRecord(queue_->copied[queue_->turn], queue_->stream));
}

void CopyQueue::StartAfter(DeviceStream& stream) {
  CheckCuda(cudaEventRecord(queue_->order, stream.handle()));
  CheckCuda(cudaStreamWaitEvent(queue_->stream, queue_->order));
}

void CopyQueue::FinishBefore(DeviceStream& stream) {
  CheckCuda(cudaEventRecord(queue_->order, queue_->stream));
  CheckCuda(cudaStreamWaitEvent(stream.handle(), queue_->order));
}

}  // namespace quantmill::QUANTMILL_CUDA
