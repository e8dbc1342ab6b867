// Large copies from host to device: cut into pieces that pass through page-locked memory, so that
// the host fills one slot of a CopyQueue while the device copies from the other.
#ifndef QUANTMILL_KERNELS_CUDA_UPLOAD_H_
#define QUANTMILL_KERNELS_CUDA_UPLOAD_H_

#include "kernels/cuda/runtime.h"

namespace quantmill::QUANTMILL_CUDA {

// device = host, of one type and shape, after what is on the stream of `exec` and before what is
// put on it afterwards. Host memory may be reused when the call returns, unless it is page-locked:
// then the device copies from it, and it is read until the stream is synchronized. Copies that are
// smaller than a slot go straight through the stream, too.
void UploadRows(Exec& exec, ConstMatrix host, Matrix device);

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_UPLOAD_H_
