#include <string>

#include "kernels/core/error.h"
#include "kernels/cuda/cuda_memory.h"
#include "kernels/cuda/runtime.h"

namespace quantmill::QUANTMILL_CUDA {

Tensor CudaMemory::Allocate(DType dtype, int64_t rows, int64_t cols) const {
  const int64_t bytes = rows * cols * SizeOf(dtype);
  const int64_t limit = account_->limit;
  const int64_t held = account_->held.fetch_add(bytes) + bytes;
  const auto give_back = [account = account_, bytes] { account->held -= bytes; };
  if (limit > 0 && held > limit) {
    give_back();
    throw Error(ErrorCode::kEnvironment, "--max-gpu-mem",
                "the run needs more than it was planned to: " + std::to_string(bytes >> 20) +
                    " MiB beside " + std::to_string((held - bytes) >> 20) + " MiB pass " +
                    std::to_string(limit >> 20) + " MiB; raise it, or lower --samples");
  }
  void* memory = nullptr;
  try {
    memory = AllocateDevice(bytes);
  } catch (...) {
    give_back();
    throw;
  }
  int64_t peak = account_->peak;
  while (held > peak && !account_->peak.compare_exchange_weak(peak, held)) {
  }
  return Tensor(Matrix{memory, dtype, rows, cols, cols}, [give_back](void* freed) {
    FreeDevice(freed);
    give_back();
  });
}

}  // namespace quantmill::QUANTMILL_CUDA
