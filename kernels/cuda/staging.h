// Host arrays that travel with a call.
#ifndef QUANTMILL_KERNELS_CUDA_STAGING_H_
#define QUANTMILL_KERNELS_CUDA_STAGING_H_

#include <span>

#include "kernels/cuda/runtime.h"
#include "kernels/workspace.h"

namespace quantmill::QUANTMILL_CUDA {

// A copy of a host array, in the scope's memory.
template <typename T>
const T* OnDevice(Exec& exec, Workspace::Scope& scope, std::span<const T> host) {
  const Matrix copy = scope.Take(DTypeOf<T>::kValue, 1, std::ssize(host));
  const auto bytes = static_cast<int64_t>(host.size_bytes());
  StreamOf(exec).CopyToDevice(copy.data, bytes, host.data(), bytes, bytes, 1);
  return copy.Row<T>(0);
}

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_STAGING_H_
