// cuBLAS and cuSOLVER: their functions, found at run time, and handles, one set for each stream.
// nvcc's build alone.
#ifndef QUANTMILL_KERNELS_CUDA_LIBRARIES_H_
#define QUANTMILL_KERNELS_CUDA_LIBRARIES_H_

#include <cublas_v2.h>
#include <cusolverDn.h>

#include "kernels/cuda/runtime.h"

namespace quantmill::QUANTMILL_CUDA {

// clang-format off
#define QUANTMILL_CUBLAS_FUNCTIONS(F) \
  F(cublasCreate_v2) \
  F(cublasDestroy_v2) \
  F(cublasGetStatusString) \
  F(cublasSetAtomicsMode) \
  F(cublasSetMathMode) \
  F(cublasSetStream_v2) \
  F(cublasStrmm_v2)
#define QUANTMILL_CUSOLVER_FUNCTIONS(F) \
  F(cusolverDnCreate) \
  F(cusolverDnCreateParams) \
  F(cusolverDnDestroy) \
  F(cusolverDnDestroyParams) \
  F(cusolverDnSetDeterministicMode) \
  F(cusolverDnSetStream) \
  F(cusolverDnXpotrf) \
  F(cusolverDnXpotrf_bufferSize) \
  F(cusolverDnXtrtri) \
  F(cusolverDnXtrtri_bufferSize)
// clang-format on

// The functions that are called, under their own names (as the headers' macros spell them).
struct LibraryFunctions {
#define QUANTMILL_MEMBER(name) decltype(&::name) name;
  QUANTMILL_CUBLAS_FUNCTIONS(QUANTMILL_MEMBER)
  QUANTMILL_CUSOLVER_FUNCTIONS(QUANTMILL_MEMBER)
#undef QUANTMILL_MEMBER
  // Overloaded in C++: the one of the library.
  cublasStatus_t (*cublasGemmEx)(cublasHandle_t, cublasOperation_t, cublasOperation_t, int, int,
                                 int, const void*, const void*, cudaDataType, int, const void*,
                                 cudaDataType, int, const void*, void*, cudaDataType, int,
                                 cublasComputeType_t, cublasGemmAlgo_t);
};

// Loads both libraries at the first call, not with the program: that takes a quarter of a GB and
// 0.15 s, which runs on a CPU need not pay, and a machine without them can run those. Throws
// Error(kEnvironment) naming one that is not there.
const LibraryFunctions& Functions();

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

  const LibraryFunctions& functions;
  cublasHandle_t blas = nullptr;
  cusolverDnHandle_t solver = nullptr;
  cusolverDnParams_t solver_params = nullptr;
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_LIBRARIES_H_
