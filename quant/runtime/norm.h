// A norm of the model, as the op wants it.
#ifndef QUANTMILL_QUANT_RUNTIME_NORM_H_
#define QUANTMILL_QUANT_RUNTIME_NORM_H_

#include "kernels/ops.h"
#include "quant/model/decoder_spec.h"

namespace quantmill {

// gain: [1, n] F32 as stored.  bias: the same, or empty. Both must outlive the use.
inline NormParams NormOf(const DecoderSpec& spec, ConstMatrix gain, ConstMatrix bias = {}) {
  return {spec.norm, spec.norm_eps, spec.gain_offset, gain, bias};
}

}  // namespace quantmill

#endif  // QUANTMILL_QUANT_RUNTIME_NORM_H_
