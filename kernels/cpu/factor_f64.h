// FactorGram in double precision: the second try where F32 fails. Correct first, fast second.
#ifndef QUANTMILL_KERNELS_CPU_FACTOR_F64_H_
#define QUANTMILL_KERNELS_CPU_FACTOR_F64_H_

#include "kernels/ops.h"

namespace quantmill::cpu {

// As Backend::FactorGram with Precision::kF64. gram: [n, n] F32, n > 0.
FactorResult FactorInF64(Exec& exec, ConstMatrix diagonal, float damp, Matrix gram);

}  // namespace quantmill::cpu

#endif  // QUANTMILL_KERNELS_CPU_FACTOR_F64_H_
