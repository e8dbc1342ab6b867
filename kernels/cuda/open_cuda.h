// Opens the cuda backend: what select.cc knows of this folder. Needs no CUDA header.
#ifndef QUANTMILL_KERNELS_CUDA_OPEN_CUDA_H_
#define QUANTMILL_KERNELS_CUDA_OPEN_CUDA_H_

#include <memory>

#include "kernels/ops.h"

namespace quantmill::QUANTMILL_CUDA {

// Whether this machine has a device that can be opened.
bool HasDevice();

// Throws Error(kEnvironment) that says what is missing: driver, device, or kernels for it.
std::unique_ptr<Backend> OpenCuda(int host_threads);

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_OPEN_CUDA_H_
