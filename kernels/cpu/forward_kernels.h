// Row kernels of the forward ops, compiled once per instruction set. One call is one row; results
// depend on the row's length and content alone.
#ifndef QUANTMILL_KERNELS_CPU_FORWARD_KERNELS_H_
#define QUANTMILL_KERNELS_CPU_FORWARD_KERNELS_H_

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace quantmill::cpu {

struct NormRow {
  const float* x = nullptr;
  int64_t features = 0;
  bool center = false;  // kLayer
  float eps = 0;
  float gain_offset = 0;
  const float* gain = nullptr;
  const float* bias = nullptr;  // or null
};

// Of one row of logits. NaN is never the maximum; if nothing exceeds -infinity: -infinity at 0.
struct LogitStats {
  float max = 0;
  int32_t argmax = 0;  // the lowest on ties
  double sum = 0;      // of e^(x - max)
};

inline constexpr int kActivations = 4;  // in the order of ops.h's enum

struct ForwardKernels {
  void (*norm_f32)(const NormRow& row, float* out);  // out may be x
  void (*norm_bf16)(const NormRow& row, uint16_t* out);
  // In place on `heads` heads. table: cos, then sin, of `half` angles.
  void (*rope)(const float* table, int64_t half, int64_t heads, int64_t head_dim, float* x);
  // out = activation(gate) * up; up may be null (ones); out may be gate.
  void (*activation_f32[kActivations])(const float* gate, const float* up, int64_t n, float* out);
  void (*activation_bf16[kActivations])(const float* gate, const float* up, int64_t n,
                                        uint16_t* out);
  void (*soft_cap)(float cap, int64_t n, float* x);
  // Terms are F32; at most 64 of them are summed in F32 (a lane of an accumulator), the rest in
  // F64.
  LogitStats (*logit_stats)(const float* x, int64_t n);
  // KL(reference || test) of two rows with these statistics. shift: log-sum-exp of test minus that
  // of reference.
  double (*divergence)(const float* reference, const LogitStats& reference_stats, const float* test,
                       const LogitStats& test_stats, double shift, int64_t n);
};

QUANTMILL_DECLARE_ISA_TABLE(ForwardKernels, kForwardKernels);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_FORWARD_KERNELS_H_
