#include <algorithm>
#include <string>
#include <utility>

#include "kernels/core/error.h"
#include "kernels/cuda/cuda_memory.h"

namespace quantmill::QUANTMILL_CUDA {

// Not FreeKept(0): empty tensors have memory too, which counts as nothing.
CudaMemory::Pool::~Pool() {
  for (const Kept& kept : kept_) FreeDevice(kept.memory);
}

void CudaMemory::Pool::Limit(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  limit_ = bytes;
}

int64_t CudaMemory::Pool::peak() {
  const std::lock_guard lock(mutex_);
  return peak_;
}

void CudaMemory::Pool::CheckLimit(int64_t bytes) const {
  if (limit_ == 0 || taken_ + bytes <= limit_) return;
  throw Error(ErrorCode::kEnvironment, "--max-gpu-mem",
              "the run needs more than it was planned to: " + std::to_string(bytes >> 20) +
                  " MiB beside " + std::to_string(taken_ >> 20) + " MiB pass " +
                  std::to_string(limit_ >> 20) + " MiB; raise it, or lower --samples");
}

void CudaMemory::Pool::FreeKept(int64_t bytes) {
  while (!kept_.empty() && kept_bytes_ > bytes) {
    FreeDevice(kept_.front().memory);
    kept_bytes_ -= kept_.front().bytes;
    kept_.pop_front();
  }
}

void* CudaMemory::Pool::TakeKept(int64_t bytes) {
  const auto found = std::find_if(kept_.begin(), kept_.end(),
                                  [&](const Kept& kept) { return kept.bytes == bytes; });
  if (found == kept_.end()) return nullptr;
  void* memory = found->memory;
  streams_->RunAfter(found->left);
  ShowDevice(memory);
  kept_bytes_ -= bytes;
  kept_.erase(found);
  return memory;
}

void* CudaMemory::Pool::TakeNew(int64_t bytes) {
  FreeKept(std::max<int64_t>(0, peak_ - taken_ - bytes));
  try {
    return AllocateDevice(bytes);
  } catch (const Error&) {
    if (kept_.empty()) throw;
  }
  FreeKept(0);
  return AllocateDevice(bytes);
}

void* CudaMemory::Pool::Take(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  CheckLimit(bytes);
  void* memory = TakeKept(bytes);
  if (memory == nullptr) memory = TakeNew(bytes);
  taken_ += bytes;
  peak_ = std::max(peak_, taken_);
  return memory;
}

void CudaMemory::Pool::GiveBack(void* memory, int64_t bytes) {
  const std::lock_guard lock(mutex_);
  HideDevice(memory);
  kept_.push_back({memory, bytes, streams_->Now()});
  kept_bytes_ += bytes;
  taken_ -= bytes;
}

CudaMemory::CudaMemory(int64_t overhead)
    : streams_(std::make_shared<StreamGroup>()),
      pool_(std::make_shared<Pool>(overhead, streams_)) {}

Tensor CudaMemory::Allocate(DType dtype, int64_t rows, int64_t cols) const {
  const int64_t bytes = rows * cols * SizeOf(dtype);
  void* memory = pool_->Take(bytes);
  return Tensor(Matrix{memory, dtype, rows, cols, cols},
                [pool = pool_, bytes](void* freed) { pool->GiveBack(freed, bytes); });
}

}  // namespace quantmill::QUANTMILL_CUDA
