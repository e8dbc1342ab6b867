// Handles of cuBLAS and cuSOLVER, one set for each stream. nvcc's build alone.
#ifndef QUANTMILL_KERNELS_CUDA_LIBRARIES_H_
#define QUANTMILL_KERNELS_CUDA_LIBRARIES_H_

#include <cublas_v2.h>
#include <cusolverDn.h>

#include "kernels/cuda/runtime.h"

namespace quantmill::QUANTMILL_CUDA {

// A library call fails only because of a bug, or where memory has run out under it: Check.
void CheckBlas(cublasStatus_t status,
               const std::source_location& location = std::source_location::current());
void CheckSolver(cusolverStatus_t status,
                 const std::source_location& location = std::source_location::current());

struct DeviceStream::Libraries {
  explicit Libraries(cudaStream_t stream);
  ~Libraries();
  Libraries(const Libraries&) = delete;
  Libraries& operator=(const Libraries&) = delete;

  cublasHandle_t blas = nullptr;
  cusolverDnHandle_t solver = nullptr;
  cusolverDnParams_t solver_params = nullptr;
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_LIBRARIES_H_
