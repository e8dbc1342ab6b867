// The PTX instructions that kernels of this folder use by name: matrix products of tensor cores,
// the loads of their operands, and asynchronous copies to shared memory. All exist from sm_80 on.
// The host build has its own definitions (tests/support/cuda_host/ptx_emulation.h).
//
// Operands of matrix products are spread over the 32 lanes of a warp, every lane holding pairs of
// neighbouring 16-bit elements, the first one in the low half of a register. With g = lane / 4 and
// t = lane % 4, those of m16n8k16 are
//   A [16, 16]  a0: row g, columns 2t, 2t + 1;  a1: row g + 8;  a2, a3: the same, columns + 8
//   B [16, 8]   b0: rows 2t, 2t + 1 of column g;  b1: rows + 8
//   C [16, 8]   c0, c1: row g, columns 2t, 2t + 1;  c2, c3: row g + 8   (F32, a register each)
// What is here of a warp is called by all of its lanes together.
#ifndef QUANTMILL_KERNELS_CUDA_PTX_H_
#define QUANTMILL_KERNELS_CUDA_PTX_H_

#include "kernels/cuda/device.h"

namespace quantmill::QUANTMILL_CUDA {

// Eight 16-bit elements: a row of the 8x8 matrices that ldmatrix loads, and what one asynchronous
// copy moves.
struct alignas(16) Octet {
  uint32_t pairs[4];
};

// The halves of a register, as floats.
__device__ inline float LowBF16(uint32_t pair) { return ToFloat(BF16{uint16_t(pair & 0xFFFF)}); }
__device__ inline float HighBF16(uint32_t pair) { return ToFloat(BF16{uint16_t(pair >> 16)}); }

}  // namespace quantmill::QUANTMILL_CUDA

#ifndef __CUDACC__
#include "tests/support/cuda_host/ptx_emulation.h"
#else

namespace quantmill::QUANTMILL_CUDA {

// Loads four 8x8 matrices of 16-bit elements: row r of matrix m is `row` of lane 8m + r. Lane l
// gets in to[m] the elements 2t, 2t + 1 of row g.
__device__ inline void LoadMatrices(SharedArray<Octet> row, uint32_t (&to)[4]) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

// The same, of the transposed matrices: to[m] holds the elements g of rows 2t, 2t + 1.
__device__ inline void LoadTransposed(SharedArray<Octet> row, uint32_t (&to)[4]) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

// c += a b, operands of BF16; products are exact, sums in F32 (which the hardware may truncate
// rather than round). A row of c depends on its row of a and on b alone.
__device__ inline void MultiplyAddBF16(const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                       float (&c)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, "
      "{%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Two floats rounded to nearest even.
__device__ inline uint32_t PairBF16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// 2^x to a relative error of 2^-22; results below the normal range are 0.
__device__ inline float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// 1 / x to a relative error of 2^-23; 0 where it is below the normal range.
__device__ inline float Reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// x, as a value that the compiler knows nothing of: what is computed from it in a loop is computed
// there, and takes no registers throughout.
__device__ inline int Recomputed(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// Copies from global to shared memory that run beside what the thread does meanwhile. One object
// for each thread. What was copied may be read by the thread that copied it after Wait, and by
// others after a barrier that follows; until then its place is neither read nor written.
class AsyncCopies {
 public:
  // 16 bytes, aligned to as many; zeros where `exists` is false (`from` is not read then, but is an
  // address in global memory).
  __device__ void Copy(SharedArray<Octet> to, const Octet* from, bool exists) {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    const int bytes = exists ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(bytes)
                 : "memory");
  }
  // Closes a group: the copies since the last call, of which there may be none.
  __device__ void Commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  // Until the copies of all groups have arrived, but for the kNewest that were closed last.
  template <int kNewest>
  __device__ void Wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kNewest) : "memory");
  }
};

}  // namespace quantmill::QUANTMILL_CUDA

#endif  // __CUDACC__

#endif  // QUANTMILL_KERNELS_CUDA_PTX_H_
