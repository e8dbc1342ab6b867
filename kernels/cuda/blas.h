// Dense linear algebra on the device, from libraries: cuBLAS and cuSOLVER in blas.cu, plain loops
// in tests/support/cuda_host/blas.cc. Row-major, all matrices in device memory, none aliasing
// unless said. Enqueued on the stream of `exec`.
#ifndef QUANTMILL_KERNELS_CUDA_BLAS_H_
#define QUANTMILL_KERNELS_CUDA_BLAS_H_

#include "kernels/ops.h"

namespace quantmill::QUANTMILL_CUDA {

enum class Transpose : uint8_t { kNo, kYes };

// c = op(a) op(b) + beta c.  a, b: both F32 (products in F32, not TF32) or both BF16.  c: [m, n]
// F32.  Sums in F32. The same shapes give the same bits.
void Gemm(Exec& exec, Transpose transpose_a, ConstMatrix a, Transpose transpose_b, ConstMatrix b,
          float beta, Matrix c);

// a = L, a being the lower triangle of L L^T, in place; the strict upper triangle is left as it is.
// a: [n, n] F32|F64. Waits. Returns -1, or the first column whose pivot is not positive (a is then
// spoiled).
int64_t CholeskyLower(Exec& exec, Matrix a);

// a = a^-1, a being a lower triangle, in place; the strict upper triangle is left as it is.
// a: [n, n] F32|F64.
void InvertLower(Exec& exec, Matrix a);

// y = x op(r), r being the upper triangle of `factor`; its strict lower triangle is not read.
// x, y: [rows, n] F32.  factor: [n, n] F32.
void MultiplyUpper(Exec& exec, ConstMatrix x, Transpose transpose, ConstMatrix factor, Matrix y);

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // QUANTMILL_KERNELS_CUDA_BLAS_H_
