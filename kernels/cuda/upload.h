// Large copies from host to device: cut into pieces that pass through page-locked memory, so that
// the host fills one slot of a CopyQueue while the device copies from the other.
#ifndef QUANTMILL_KERNELS_CUDA_UPLOAD_H_
#define QUANTMILL_KERNELS_CUDA_UPLOAD_H_

#include "kernels/cuda/runtime.h"

namespace quantmill::QUANTMILL_CUDA {

// What a destination is used for by what is on the stream already.
enum class Destination : uint8_t {
  kInUse,  // it may be read or written: the copy waits for the stream
  kFresh,  // nothing, it was just allocated: the copy runs beside the stream's kernels
};

// device = host, of one type and shape. What is put on the stream of `exec` afterwards finds it
// there. Host memory may be reused when the call returns. Copies that are smaller than a slot go
// straight through the stream.
void UploadRows(Exec& exec, ConstMatrix host, Destination destination, Matrix device);

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_UPLOAD_H_
